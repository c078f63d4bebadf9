"""Whole projects: upload from a folder, download, versions, removal."""

import json
from pathlib import Path

import numpy as np
import pytest
import supervisely as sly
from supervisely.project.download import download_async_or_sync

from rtdetrv2_pytorch.src.data.readers.supervisely import is_crowd
from rtdetrv2_pytorch.src.data.splits import find_splits
from supervisely_integration.local.importers.into_store import import_folder
from supervisely_integration.train.project_splits import box_objects, write_coco

BATCH = 60  # more than one batch of the SDK


@pytest.fixture(scope="module")
def local_project(tmp_path_factory):
    """Nested data sets, several shapes, tags, images without objects."""
    folder = tmp_path_factory.mktemp("local") / "project"
    project = sly.Project(str(folder), sly.OpenMode.CREATE)
    classes = [
        sly.ObjClass("box", sly.Rectangle, [255, 0, 0]),
        sly.ObjClass("outline", sly.Polygon),
        sly.ObjClass("mask", sly.Bitmap),
        sly.ObjClass("anything", sly.AnyGeometry),
    ]
    tags = [
        sly.TagMeta("train", sly.TagValueType.NONE),
        sly.TagMeta("note", sly.TagValueType.ANY_STRING),
    ]
    project.set_meta(sly.ProjectMeta(classes, tags))
    shapes = [
        sly.Rectangle(1, 2, 9, 19),
        sly.Polygon([sly.PointLocation(r, c) for r, c in ((1, 1), (1, 9), (9, 9))]),
        sly.Bitmap(np.eye(6, dtype=bool), sly.PointLocation(3, 3)),
        sly.Point(4, 5),
    ]
    labels = [
        sly.Label(shape, class_, [sly.Tag(tags[1], f"note {index}")])
        for index, (shape, class_) in enumerate(zip(shapes, classes, strict=True))
    ]
    for name, parents, count in (("a", [], BATCH), ("b", ["a"], 3), ("c", ["a", "b"], 1)):
        path = "/".join(f"{parent}/datasets" for parent in parents)
        dataset = project.create_dataset(name, f"{path}/{name}" if path else None)
        for number in range(count):
            picture = np.full((20, 30, 3), number, np.uint8)
            annotation = sly.Annotation(
                (20, 30), labels[: number % 5], [sly.Tag(tags[0])] if number % 2 else []
            )
            dataset.add_item_np(f"{number}.png", picture, annotation)
    return folder


def contents(folder):
    """(data set, image) -> (pixels, objects, tags), without ids and dates."""
    project = sly.Project(str(folder), sly.OpenMode.READ)
    found = {}
    for dataset in project.datasets:
        for name in dataset.get_items_names():
            annotation = json.loads(Path(dataset.get_ann_path(name)).read_text())
            found[dataset.name, name] = (
                sly.image.read(dataset.get_img_path(name)).tolist(),
                [
                    (o["classTitle"], o["geometryType"], o.get("points") or o["bitmap"],
                     [(t["name"], t.get("value")) for t in o["tags"]])
                    for o in annotation["objects"]
                ],
                [(t["name"], t.get("value")) for t in annotation["tags"]],
            )  # fmt: skip
    return found


@pytest.mark.parametrize("way", ["sync", "async"])
def test_round_trip(api, local_project, tmp_path, way):
    id_, _ = sly.Project.upload(
        str(local_project), api, 1, f"uploaded for {way}", log_progress=False
    )
    info = api.project.get_info_by_id(id_)
    assert (info.items_count, info.datasets_count) == (BATCH + 3 + 1, 3)
    tree = [("/".join([*path, d.name]), d.items_count) for path, d in api.dataset.tree(id_)]
    assert tree == [("a", BATCH), ("a/b", 3), ("a/b/c", 1)]
    target = str(tmp_path / "down")
    if way == "sync":
        sly.Project.download(api, id_, target, log_progress=False)
    else:
        download_async_or_sync(api, id_, target, log_progress=False)
    assert contents(target) == contents(local_project)
    uploaded = sly.ProjectMeta.from_json(api.project.get_meta(id_))
    assert uploaded == sly.Project(str(local_project), sly.OpenMode.READ).meta


def test_second_upload_sends_no_images(api, instance, local_project):
    sly.Project.upload(str(local_project), api, 1, "first of two", log_progress=False)
    blobs = set((instance.store.root / "blobs").rglob("*"))
    sly.Project.upload(str(local_project), api, 1, "second of two", log_progress=False)
    assert set((instance.store.root / "blobs").rglob("*")) == blobs


def test_restore_version(api, local_project, tmp_path):
    id_, _ = sly.Project.upload(str(local_project), api, 1, "versioned", log_progress=False)
    assert api.project.version.create(id_) is not None
    for dataset in api.dataset.get_list(id_):
        api.dataset.remove(dataset.id)
    restored = api.project.version.restore(id_, version_num=1)
    sly.Project.download(api, restored.id, str(tmp_path / "down"), log_progress=False)
    assert contents(tmp_path / "down") == contents(local_project)


def test_removal_frees_disk_space(tmp_path, local_project):
    from supervisely_integration.local.instance import LocalInstance

    with LocalInstance(tmp_path / "root") as instance:
        api = instance.api()
        id_, _ = sly.Project.upload(str(local_project), api, 1, "gone", log_progress=False)
        api.project.remove_permanently(id_)
        blobs = instance.store.root / "blobs"
        assert [p for p in blobs.rglob("*") if p.is_file()]  # reserved
        with instance.store.transaction():
            instance.store.database.connection.execute("UPDATE blobs SET reserved_until = ''")
        instance.store.clean()
        assert [p for p in blobs.rglob("*") if p.is_file()] == []


# Crowd regions of COCO


def test_crowd_regions_survive_import_download_and_conversion(api, instance, tmp_path):
    """Both doors give the same boxes: the training app, and `--data`."""
    folder = tmp_path / "crowds"
    for split in ("train", "val"):
        path = folder / split / f"{split}.png"
        path.parent.mkdir(parents=True)
        sly.image.write(str(path), np.zeros((40, 60, 3), np.uint8))
        entry = {"id": 1, "file_name": path.name, "width": 60, "height": 40}
        box = {"image_id": 1, "category_id": 3, "segmentation": []}
        content = {
            "images": [entry],
            "annotations": [
                {**box, "id": 1, "bbox": [1, 2, 10, 12], "iscrowd": 0},
                {**box, "id": 2, "bbox": [20, 5, 30, 20], "iscrowd": 1},
                {**box, "id": 3, "bbox": [0, 30, 60, 10], "iscrowd": "1"},
            ],
            "categories": [{"id": 3, "name": "cat"}],
        }
        (folder / split / "_annotations.coco.json").write_text(json.dumps(content))
    report = import_folder(instance.store, folder, name="crowds")
    assert report.objects == 6
    assert report.findings.counts() == {"box_crowd": 4}
    target = tmp_path / "down"
    sly.Project.download(api, report.project_id, str(target), log_progress=False)
    data = write_coco(target / "train", target / "val", tmp_path, ["cat"], convert_shapes=False)

    def crowds(split):
        found = json.loads(split.ann_file.read_text())["annotations"]
        return [(each["bbox"], each["iscrowd"]) for each in found]

    expected = [([1, 2, 10, 12], 0), ([20, 5, 30, 20], 1), ([0, 30, 60, 10], 1)]
    assert crowds(data.train) == crowds(data.val) == expected
    again = find_splits(target, tmp_path / "converted")  # the project as a folder for --data
    assert crowds(again.train) == crowds(again.val) == expected
    direct = find_splits(folder, tmp_path / "direct").train
    assert [int(each[1]) for each in crowds(direct)] == [0, 1, 1]
    # The SDK's evaluation report has no crowd regions.
    stored = json.loads((target / "train" / "ann" / "train.png.json").read_text())
    assert [o["points"]["exterior"] for o in box_objects(stored, ["cat"], "train.png")] == [
        [[1, 2], [10, 13]]
    ]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ([{"name": "iscrowd", "value": None}], True),
        ([{"name": "iscrowd"}], True),
        ([{"name": "iscrowd", "value": 1}], True),
        ([{"name": "iscrowd", "value": "0"}], False),
        ([{"name": "iscrowd", "value": False}], False),
        ([{"name": "crowded"}, "iscrowd"], False),
        (None, False),
    ],
)
def test_tag_of_crowd_regions(tags, expected):
    assert is_crowd({"tags": tags}) is expected
