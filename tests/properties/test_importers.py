"""Random projects in four formats are imported without loss."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from supervisely_integration.local.importers.items import read_items
from tests.properties.settings import examples

CLASSES = ["cat", "big dog", "köter"]  # a space and a non-ASCII letter


@st.composite
def projects(draw):
    """{image name: ((width, height), [(class, x1, y1, x2, y2)])}, edges in integer pixels."""
    project = {}
    for number in range(draw(st.integers(1, 3))):
        width, height = draw(st.integers(8, 50)), draw(st.integers(8, 50))
        objects = []
        for _ in range(draw(st.integers(0, 3))):
            # Some boxes end outside the image; all overlap it.
            x1, y1 = draw(st.integers(0, width - 2)), draw(st.integers(0, height - 2))
            x2, y2 = draw(st.integers(x1 + 2, width + 9)), draw(st.integers(y1 + 2, height + 9))
            objects.append((draw(st.sampled_from(CLASSES)), x1, y1, x2, y2))
        project[f"{number}.png"] = ((width, height), objects)
    return project


def write_images(folder, project):
    folder.mkdir(parents=True)
    for number, (name, (size, _)) in enumerate(project.items()):
        Image.new("RGB", size, (number, 0, 0)).save(folder / name)


def write_coco(folder, project):
    write_images(folder / "train", project)
    entries = [(n, *o) for n, (_, objects) in enumerate(project.values()) for o in objects]
    content = {
        "images": [
            {"id": n, "file_name": name, "width": size[0], "height": size[1]}
            for n, (name, (size, _)) in enumerate(project.items())
        ],
        "annotations": [
            {"id": i, "image_id": n, "category_id": CLASSES.index(c), "bbox": [x, y, u - x, v - y]}
            for i, (n, c, x, y, u, v) in enumerate(entries)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
    }
    (folder / "instances_train.json").write_text(json.dumps(content))


def write_yolo(folder, project):
    write_images(folder / "images" / "train", project)
    (folder / "labels" / "train").mkdir(parents=True)
    (folder / "data.yaml").write_text(json.dumps({"names": CLASSES, "train": "images/train"}))
    for name, ((width, height), objects) in project.items():
        lines = [
            f"{CLASSES.index(c)} {(x + u) / 2 / width:.9f} {(y + v) / 2 / height:.9f} "
            f"{(u - x) / width:.9f} {(v - y) / height:.9f}"
            for c, x, y, u, v in objects
        ]
        (folder / "labels" / "train" / name).with_suffix(".txt").write_text("\n".join(lines))


def write_voc(folder, project):
    write_images(folder / "JPEGImages", project)
    (folder / "Annotations").mkdir()
    for name, ((width, height), objects) in project.items():
        items = "".join(
            f"<object><name>{c}</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
            f"<xmax>{u}</xmax><ymax>{v}</ymax></bndbox></object>"
            for c, x, y, u, v in objects
        )
        size = f"<size><width>{width}</width><height>{height}</height></size>"
        path = (folder / "Annotations" / name).with_suffix(".xml")
        path.write_text(f"<annotation>{size}{items}</annotation>", encoding="utf-8")


def write_supervisely(folder, project):
    write_images(folder / "ds" / "img", project)
    (folder / "ds" / "ann").mkdir()
    classes = [{"title": c, "shape": "rectangle", "color": "#FF0000"} for c in CLASSES]
    (folder / "meta.json").write_text(json.dumps({"classes": classes, "tags": []}))
    for name, ((width, height), objects) in project.items():
        content = {
            "size": {"width": width, "height": height},
            "tags": [],
            "objects": [
                {
                    "classTitle": c,
                    "geometryType": "rectangle",
                    "points": {"exterior": [[x, y], [u - 1, v - 1]], "interior": []},
                }
                for c, x, y, u, v in objects
            ],
        }
        (folder / "ds" / "ann" / f"{name}.json").write_text(json.dumps(content))


WRITERS = {
    "coco": write_coco,
    "yolo": write_yolo,
    "voc": write_voc,
    "supervisely": write_supervisely,
}


@pytest.mark.parametrize("format", WRITERS)
def test_boxes_round_trip_in_all_formats(format):
    @examples(25)
    @given(projects())
    def check(project):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "data"
            WRITERS[format](folder, project)
            source = read_items(folder)
            items = list(source.items)
        assert source.format == format
        assert [item.name for item in items] == list(project)
        for item in items:
            (width, height), objects = project[item.name]
            assert item.annotation["size"] == {"width": width, "height": height}
            found = [
                (o["classTitle"], *o["points"]["exterior"][0], *o["points"]["exterior"][1])
                for o in item.annotation["objects"]
            ]
            expected = [(c, x, y, min(u, width), min(v, height)) for c, x, y, u, v in objects]
            assert [box[0] for box in found] == [box[0] for box in expected]
            for box, truth in zip(found, expected, strict=True):
                assert box[1:] == pytest.approx(truth[1:], abs=0.01)
        given_objects = sum(len(objects) for _, objects in project.values())
        assert source.findings.given_images == len(project)
        assert source.findings.given_objects == given_objects
        assert source.findings.lost_images == source.findings.lost_objects == 0

    check()
