"""Whole projects: upload from a folder, download, versions, removal."""

import json
from pathlib import Path

import numpy as np
import pytest
import supervisely as sly
from supervisely.project.download import download_async_or_sync

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
