"""Checks of a project of the platform: lost datasets, overlapping splits, original names."""

import json
import logging

import pytest
from PIL import Image

from rtdetrv2_pytorch.src.doctor.examination import Options
from rtdetrv2_pytorch.src.misc.errors import DatasetError
from rtdetrv2_pytorch.src.solver.stopping import StopFlag
from supervisely_integration.train.data_check import Origins, examine_splits
from supervisely_integration.train.lifecycle import TrainingStopped
from supervisely_integration.train.project_splits import write_coco
from tests.damaged_datasets import encoded

SIZE = {"width": 64, "height": 48}


def rectangle(title="cat", box=(8, 8, 39, 39), shape="rectangle"):
    points = {"exterior": [list(box[:2]), list(box[2:])], "interior": []}
    return {"id": 1, "classTitle": title, "geometryType": shape, "points": points}


@pytest.fixture
def project(tmp_path):
    """Splits as the SDK writes them: two images to train on, one to validate on."""
    for split, number in (("train", 2), ("val", 1)):
        for i in range(1, number + 1):
            add(tmp_path, split, f"{split}_img_{i}", [rectangle()], seed=10 * number + i)
    return tmp_path


def add(project, split, stem, objects, *, seed=0, size=SIZE):
    for part in ("img", "ann"):
        (project / split / part).mkdir(parents=True, exist_ok=True)
    (project / split / "img" / f"{stem}.png").write_bytes(encoded("PNG", seed))
    text = json.dumps({"size": size, "objects": objects})
    (project / split / "ann" / f"{stem}.png.json").write_text(text)


def examined(project, origins=None, stop=None, *, convert_shapes=False):
    data = write_coco(
        project / "train",
        project / "val",
        project / "coco",
        ["cat"],
        convert_shapes=convert_shapes,
    )
    return examine_splits(
        data,
        origins or Origins(),
        project / "result",
        Options(),
        stop=stop or StopFlag(),
    )


def summary(report):
    return [(f.kind.name, f.split, f.where, f.count) for f in report.findings]


def test_valid_project_has_no_findings(project, caplog):
    with caplog.at_level(logging.INFO, "supervisely_integration"):
        report = examined(project)
    assert report.findings == []
    assert report.summary() in caplog.messages
    assert {path.name for path in (project / "result").iterdir()} == {
        "data_report.json",
        "data_report.html",
    }


def test_counts_include_conversion(project):
    objects = [
        rectangle(),
        rectangle("dog"),
        rectangle(shape="polygon"),
        rectangle(box=(100, 100, 120, 120)),
        rectangle(box=(50, 40, 80, 80)),
    ]
    add(project, "train", "train_img_3", objects, seed=30)
    add(project, "train", "train_img_4", [rectangle()], size={"width": 640, "height": 480}, seed=31)
    add(project, "train", "train_img_5", [rectangle()], seed=32)
    (project / "train" / "ann" / "train_img_5.png.json").unlink()
    report = examined(project)
    train = report.splits[0]
    assert (train.images.given, train.images.used, train.images.skipped) == (5, 3, 2)
    # 3 used: of images 1 and 2, and the whole one of image 3; the clipped one, too.
    assert (train.boxes.used, train.clipped, train.boxes.skipped) == (4, 1, 4)
    assert sorted(summary(report)) == sorted(
        [
            ("size_disagrees", "train", "img/train_img_4.png", 1),
            ("unlisted_image", "train", "img/train_img_5.png", 1),
            ("box_outside", "train", "img/train_img_3.png", 1),
            ("box_out_of_bounds", "train", "img/train_img_3.png", 1),
            ("unknown_geometry", "train", "cat", 1),
            ("class_not_selected", "train", "dog", 1),
        ]
    )


def test_original_image_names_are_restored(project):
    names = {"train_img_1": "night/a.png", "train_img_2": "day/b.png", "val_img_1": "day/c.png"}
    copy = (project / "train" / "img" / "train_img_1.png").read_bytes()
    (project / "val" / "img" / "val_img_1.png").write_bytes(copy)
    report = examined(project, Origins(names))
    (found,) = report.findings
    assert found.kind.name == "leak_identical"
    assert found.where == "day/c.png"
    assert found.detail == "identical to night/a.png of the training split"


def test_overlapping_splits_and_images_in_no_split(project):
    names = {"train_img_1": "ds/a.png", "train_img_2": "ds/b.png", "val_img_1": "ds/b.png"}
    on_disk = {"ds": {"a.png", "b.png", "c.png"}, "my_img": {"x.png", "y.png"}}
    report = examined(project, Origins(names, on_disk))
    assert summary(report) == [
        ("split_overlap", "", "ds/b.png", 1),
        ("left_out", "", "ds/c.png", 1),
        ("left_out", "", "my_img/x.png", 1),
        ("left_out", "", "my_img/y.png", 1),
    ]
    assert (report.images.given, report.images.used, report.images.skipped) == (6, 3, 3)


def test_equal_names_in_several_datasets(project):
    names = {"train_img_1": "a/x.png", "train_img_2": "b/c/x.png", "val_img_1": "a/y.png"}
    assert summary(examined(project, Origins(names))) == [("same_name", "", "x.png", 1)]


def test_split_without_readable_images_is_rejected(project):
    (project / "train" / "img" / "train_img_1.png").write_bytes(b"")
    assert not examined(project).refusals
    (project / "val" / "img" / "val_img_1.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="none of 1 image can be used.*add images, or choose"):
        examined(project)
    content = json.loads((project / "result" / "data_report.json").read_text())
    assert content["verdict"] == "refuses"


def test_stop_ends_the_examination(project):
    stop = StopFlag()
    stop.request("Stop button")
    with pytest.raises(TrainingStopped, match="Stop button"):
        examined(project, stop=stop)
    assert not (project / "result").exists()


def test_clipped_box_is_shown_in_the_page(project):
    add(project, "train", "train_img_3", [rectangle(box=(50, 40, 80, 80))], seed=30)
    examined(project)
    page = (project / "result" / "data_report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 1
    assert Image.open(project / "train" / "img" / "train_img_3.png").size == (64, 48)
