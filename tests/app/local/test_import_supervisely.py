"""Supervisely projects on disk: every geometry as the SDK uploads it, and damaged projects."""

import json

import numpy as np
import pytest
import supervisely as sly

from rtdetrv2_pytorch.src.data.readers.formats import detect_format
from rtdetrv2_pytorch.src.misc.errors import DatasetError
from supervisely_integration.local.emulator.storage.sql.listing import Listing
from supervisely_integration.local.emulator.store import Store
from supervisely_integration.local.importers.into_store import import_folder
from supervisely_integration.local.importers.items import read_items
from tests.app.local.import_folders import messages, picture, taken, write

CAT, TAG = "cat <&>", "night"
META = {
    "classes": [
        {"id": 5, "title": CAT, "shape": "any", "color": "#FF0000", "hotkey": "c"},
        {"title": "box", "shape": "rectangle", "color": "#00FF00"},
    ],
    "tags": [{"name": TAG, "value_type": "any_string", "color": "#0000FF"}],
    "projectType": "images",
}
GEOMETRIES = [
    {"geometryType": "rectangle", "points": {"exterior": [[30, 40], [10, 20]], "interior": []}},
    {
        "geometryType": "polygon",
        "points": {"exterior": [[0, 0], [9, 0], [9, 9]], "interior": [[[2, 1], [4, 1], [4, 3]]]},
    },
    {"geometryType": "line", "points": {"exterior": [[1, 2], [3, 4]], "interior": []}},
    {"geometryType": "point", "points": {"exterior": [[5, 6]], "interior": []}},
    sly.Bitmap(np.eye(4, dtype=bool), sly.PointLocation(4, 3)).to_json(),
    {"geometryType": "graph", "nodes": {"a": {"loc": [7, 8]}, "b": {"loc": [9, 10]}}},
    {"geometryType": "oriented_bbox", "points": [[1, 2], [11, 22]], "angle": 0.3},
    {
        "geometryType": "multipolygon",
        "parts": [{"exterior": [[0, 0], [5, 0], [5, 5]], "interior": []}],
    },
    sly.AlphaMask(np.full((2, 3), 9, np.uint8), sly.PointLocation(1, 0)).to_json(),
    {"geometryType": "cuboid", "points": [[1, 1]] * 7, "faces": [[0, 1, 2, 3]]},
]


def annotation(*objects, size=(100, 50), tags=()):
    return {
        "description": "",
        "size": {"width": size[0], "height": size[1]},
        "tags": list(tags),
        "objects": list(objects),
    }


def figure(geometry=GEOMETRIES[0], title=CAT, **fields):
    return {"classTitle": title, "tags": [], "description": "", **geometry, **fields}


def item(folder, name, content, encoding="utf-8"):
    picture(folder / "img" / name)
    write(folder / "ann" / f"{name}.json", content, encoding)


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    write(folder / "meta.json", META, "utf-8-sig")
    return folder


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: g["geometryType"])
def test_geometries_are_stored_as_the_sdk_uploads_them(project, geometry):
    item(project / "ds", "a.png", annotation(figure(geometry)), "utf-8-sig")
    source = read_items(project)
    (imported,) = source.items
    assert messages(source) == {"class_left_out": ["box (no object uses it)"]}
    (stored,) = imported.annotation["objects"]
    if geometry["geometryType"] == "cuboid":  # the SDK itself fails on it
        expected = {"objects": [figure(geometry)]}
    else:
        expected = sly.Annotation._to_subpixel_coordinate_system_json(
            {"objects": [figure(geometry)]}
        )
    assert stored == expected["objects"][0]


def test_rectangle_edges(project):
    """Pixels 10..30 and 20..40 on disk, edges in the instance."""
    item(project / "ds", "a.png", annotation(figure()))
    assert taken(project)[0]["ds/a.png"] == [(CAT, "rectangle", [[10, 20], [31, 41]])]


def test_import_round_trips_through_the_sdk(project, tmp_path):
    """Meta, tags and boxes survive a round trip without a server."""
    tags = [{"name": TAG, "value": "yes", "id": 99, "labelerLogin": "me"}]
    content = annotation(figure(tags=tags, id=4, classId=5), tags=tags)
    item(project / "ds", "a.png", content)
    store = Store(tmp_path / "instance")
    report = import_folder(store, project)
    (record,) = store.images.page(Listing(), projectId=report.project_id)["entities"]
    (stored,) = store.annotations.get([record["id"]])
    meta = sly.ProjectMeta.from_json(store.projects.meta(report.project_id))
    assert [(c.name, c.geometry_type.geometry_name(), c.hotkey) for c in meta.obj_classes] == [
        (CAT, "any", "c"),
    ]
    pixels = sly.Annotation._to_pixel_coordinate_system_json(stored["annotation"])
    found = sly.Annotation.from_json(pixels, meta)
    (label,) = found.labels
    assert label.geometry.to_json()["points"]["exterior"] == [[10, 20], [30, 40]]
    assert [(t.name, t.value) for t in (*found.img_tags, *label.tags)] == [(TAG, "yes")] * 2
    assert found.img_size == (50, 100)
    store.close()


def test_nested_datasets_and_names_that_the_sdk_mishandles(project, tmp_path):
    names = ["top", "top/datasets/child", "top/datasets/child/datasets/deep", "img", "my_ann"]
    names += ["meta", "only/datasets/inner", "datasets"]
    for name in names:
        item(project / name, "a.png", annotation())
    found, source = taken(project)
    assert sorted(found) == sorted(
        f"{name}/a.png"
        for name in ("top", "top/child", "top/child/deep", "img", "my_ann", "meta")
        + ("only/inner", "datasets")
    )
    store = Store(tmp_path / "instance")
    report = import_folder(store, project)
    records = store.datasets.page(Listing(), projectId=report.project_id)["entities"]
    names_by_id = {record["id"]: record["name"] for record in records}
    parents = {record["name"]: names_by_id.get(record["parentId"]) for record in records}
    assert parents == {
        **{"top": None, "child": "top", "deep": "child", "only": None, "inner": "only"},
        **{"img": None, "my_ann": None, "meta": None, "datasets": None},
    }
    store.close()


def test_old_style_annotation_names(project):
    picture(project / "ds" / "img" / "a.png")
    write(project / "ds" / "ann" / "a.json", annotation(figure()))
    assert list(taken(project)[0]) == ["ds/a.png"]


def test_invalid_parts_of_a_project_are_skipped(project):
    write(
        project / "meta.json",
        {
            **META,
            "classes": [*META["classes"], {"title": "shapeless"}, META["classes"][1], "text"],
            "tags": [*META["tags"], {}],
        },
    )
    folder = project / "ds"
    points = GEOMETRIES[0]["points"]
    objects = [
        figure(),
        figure(title="unknown"),
        figure(title=None),
        figure(GEOMETRIES[1], title="box"),
        "text",
        figure(points={"exterior": [[1, 2], ["x", 3]], "interior": []}),
        figure(points={"exterior": [[1, 2]], "interior": []}),
        figure(points=None),
        figure(points={**points, "exterior": [[200, 200], [300, 300]]}),
        figure(points={**points, "exterior": [[-5, -5], [4, 4]]}),
        figure(GEOMETRIES[4], bitmap={"data": "", "origin": [0, 0]}),
        figure(sly.Bitmap(np.ones((51, 9), bool)).to_json(), title=CAT),
        figure(GEOMETRIES[1], points={**points, "exterior": [[1, 1], [2, 2]]}),
        figure(tags=[{"name": "gone"}, {"name": TAG}, TAG, 7]),
    ]
    item(folder, "a.png", annotation(*objects, tags=[{"name": "gone"}, {"name": TAG}]))
    item(folder, "bad json.png", '{"objects": [')
    item(folder, "deep.png", "[" * 100_000)
    item(folder, "no objects.png", {"size": {}})
    item(folder, "other size.png", annotation(figure(), size=(7, 7)))
    item(folder, "no size.png", {"objects": [figure()]})
    item(folder, "binary.png", "")
    (folder / "ann" / "binary.png.json").write_bytes(b"\xff\xfe\x00")
    picture(folder / "img" / "no annotation.png")
    write(folder / "img" / "notes.txt", "hello")
    write(folder / "ann" / "no image.png.json", annotation(figure(), figure()))
    item(folder, "broken.png", annotation(figure()))
    (folder / "img" / "broken.png").write_bytes(b"\x89PNG")
    found, source = taken(project)
    box = (CAT, "rectangle", [[10, 20], [31, 41]])
    assert found == {
        "ds/a.png": [box, (CAT, "rectangle", [[0, 0], [5, 5]]), box],
        "ds/no size.png": [box],
    }
    at = "ds: a.png (object "
    said = messages(source)
    # The rest of these messages comes from libraries.
    said["annotation_malformed"] = sorted(m[:57] for m in said["annotation_malformed"])
    assert said == {
        "class_entry_malformed": [
            "meta.json (class without title or shape: {'title': 'shapeless'})",
            "meta.json (class 'box' occurs more than once)",
            "meta.json (class without title or shape: text)",
            "meta.json (tag without name: {})",
        ],
        "not_a_file": ["ds: notes.txt (not an image)"],
        "unknown_class": [f"{at}2: unknown)", f"{at}3: None)"],
        "annotation_malformed": [
            f"{at}11: damaged bitmap: mask is not an imag",
            f"{at}12: damaged bitmap: mask of 9x51 pixels",
            f"{at}13: polygon with too few points)",
            f"{at}4: polygon of a class whose shape is re",
            f"{at}5: text)",
            f"{at}6: damaged rectangle: 'x' is not a numb",
            f"{at}7: damaged rectangle: not enough values",
            f"{at}8: damaged rectangle: 'NoneType' object",
            "ds: bad json.png (cannot be read (Expecting value: line 1",
            "ds: binary.png (is not in UTF-8 (invalid start byte))",
            "ds: deep.png (cannot be read (maximum recursion depth exc",
            "ds: no objects.png (has no list 'objects')",
        ],
        "box_outside": [f"{at}9)"],
        "unknown_tag": [f"{at}14: gone)", f"{at}14: 7)", "ds: a.png (gone)"],
        "unreadable_image": [
            "ds: broken.png (the content is none of JPEG, PNG, WEBP, BMP, TIFF, GIF, AVIF; "
            "save it as JPEG or PNG)"
        ],
        "unlisted_image": ["ds: no annotation.png (no annotation.png.json is missing)"],
        "size_disagrees": ["ds: other size.png (the image is 100x50, but 7x7 in the annotations)"],
        "missing_image": ["ds: no image.png"],
    }
    assert (source.findings.given_images, source.findings.given_objects) == (10, 19)


def test_objects_without_shape_or_with_deep_nesting(project):
    layers = None
    for _ in range(600):
        layers = [layers]
    objects = [figure(geometryType=["x"]), figure(custom=layers), figure()]
    item(project / "ds", "a.png", annotation(*objects))
    found, source = taken(project)
    assert len(found["ds/a.png"]) == 2
    assert messages(source) == {
        "annotation_malformed": ["ds: a.png (object 1: object without a shape)"],
        "class_left_out": ["box (no object uses it)"],
    }


@pytest.mark.parametrize(
    ("meta", "problem"),
    [("{", "meta.json: cannot be read"), ([], "has no list 'classes'"), ({}, "has no list")],
)
def test_invalid_meta_raises(project, meta, problem):
    write(project / "meta.json", meta)
    assert detect_format(project) == "supervisely"
    with pytest.raises(DatasetError, match=problem):
        read_items(project)


def test_project_without_datasets_raises(project):
    with pytest.raises(
        DatasetError,
        match="no dataset found; a project has meta.json and folders that contain img and ann",
    ):
        read_items(project)


# The real one


def boxes_of(source):
    """{image name: boxes as (class, left, top, right, bottom)}."""
    return {
        f"{i.dataset}/{i.name}": [
            (o["classTitle"], *o["points"]["exterior"][0], *o["points"]["exterior"][1])
            for o in i.annotation["objects"]
        ]
        for i in source.items
    }


def test_bccd_boxes(bccd):
    """The SDK writes COCO boxes without the last pixel column and row: one pixel smaller."""
    counts = json.loads((bccd / "counts.json").read_text())
    of_project = read_items(bccd / "supervisely")
    of_coco = read_items(bccd, "coco")
    ours, theirs = boxes_of(of_project), boxes_of(of_coco)
    for split, expected in counts.items():
        boxes = [b for name, each in ours.items() if name.startswith(f"{split}/") for b in each]
        assert sum(name.startswith(f"{split}/") for name in ours) == expected["images"]
        assert len(boxes) == expected["boxes"]
        for title, number in expected["per_class"].items():
            assert sum(box[0] == title for box in boxes) == number
    assert len(of_project.findings) == 0
    assert of_coco.findings.counts().keys() == {"box_zero_area"}
    assert len(of_coco.findings) == sum(len(c["zero_area"]) for c in counts.values())
    assert theirs == {
        name: [
            (title, left, top, right - 1, bottom - 1)
            for title, left, top, right, bottom in boxes
            if right - 1 > left and bottom - 1 > top
        ]
        for name, boxes in ours.items()
    }


def test_import_bccd(bccd, tmp_path):
    counts = json.loads((bccd / "counts.json").read_text())
    store = Store(tmp_path / "instance")
    report = import_folder(store, bccd / "supervisely", name="bccd")
    assert {name: (c.images, c.objects) for name, c in report.datasets.items()} == {
        split: (expected["images"], expected["boxes"]) for split, expected in counts.items()
    }
    items = store.projects.statistics(report.project_id)["objects"]["items"]
    assert {i["objectClass"]["name"]: i["total"] for i in items} == {
        title: sum(expected["per_class"][title] for expected in counts.values())
        for title in ("WBC", "RBC", "Platelets")
    }
    store.close()
