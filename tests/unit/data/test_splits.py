"""Finding splits in folders, however they are arranged."""

import json
from pathlib import Path

import pytest
from PIL import Image

from rtdetrv2_pytorch.src.data.splits import find_splits
from rtdetrv2_pytorch.src.misc.errors import DatasetError


def coco_file(path: Path, names):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": []}))


def image(path: Path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def relative(folder, splits):
    return {
        name: (
            str(getattr(splits, name).ann_file.relative_to(folder)),
            str(getattr(splits, name).img_folder.relative_to(folder)),
        )
        for name in ("train", "val")
    }


def test_coco_itself(tmp_path):
    for split in ("train2017", "val2017"):
        image(tmp_path / split / "000001.jpg")
        for kind in ("captions", "instances", "person_keypoints"):
            coco_file(tmp_path / "annotations" / f"{kind}_{split}.json", ["000001.jpg"])
    assert relative(tmp_path, find_splits(tmp_path)) == {
        "train": ("annotations/instances_train2017.json", "train2017"),
        "val": ("annotations/instances_val2017.json", "val2017"),
    }


def test_an_export_of_roboflow(tmp_path):
    for split in ("train", "valid", "test"):
        image(tmp_path / split / "a.jpg")
        coco_file(tmp_path / split / "_annotations.coco.json", ["a.jpg"])
    assert relative(tmp_path, find_splits(tmp_path)) == {
        "train": ("train/_annotations.coco.json", "train"),
        "val": ("valid/_annotations.coco.json", "valid"),
    }


def test_images_far_from_annotations_with_other_json_beside_them(tmp_path):
    """The layout of the BCCD folder."""
    for split in ("train", "val", "test"):
        image(tmp_path / "supervisely" / split / "img" / f"{split}_a.jpg")
        ann = tmp_path / "supervisely" / split / "ann" / f"{split}_a.jpg.json"
        ann.parent.mkdir(parents=True)
        ann.write_text("{}")
        coco_file(tmp_path / "coco" / f"instances_{split}.json", [f"{split}_a.jpg"])
    (tmp_path / "counts.json").write_text("{}")
    assert relative(tmp_path, find_splits(tmp_path)) == {
        "train": ("coco/instances_train.json", "supervisely/train/img"),
        "val": ("coco/instances_val.json", "supervisely/val/img"),
    }


def test_bccd_as_it_is(bccd):
    assert relative(bccd, find_splits(bccd)) == {
        "train": ("coco/instances_train.json", "supervisely/train/img"),
        "val": ("coco/instances_val.json", "supervisely/val/img"),
    }


def test_file_names_with_folders_and_one_image_folder_for_all(tmp_path):
    image(tmp_path / "images" / "sub" / "a.jpg")
    image(tmp_path / "images" / "sub" / "b.jpg")
    coco_file(tmp_path / "train.json", ["sub/a.jpg"])
    coco_file(tmp_path / "val.json", ["sub/b.jpg"])
    assert relative(tmp_path, find_splits(tmp_path)) == {
        "train": ("train.json", "images"),
        "val": ("val.json", "images"),
    }


def test_equal_file_names_in_both_splits_go_to_the_folder_named_after_the_split(tmp_path):
    for split in ("train", "val"):
        image(tmp_path / "data" / split / "0.jpg")
        coco_file(tmp_path / "ann" / f"{split}.json", ["0.jpg"])
        coco_file(tmp_path / "labels" / f"{split}.json", ["0.jpg"])
    assert relative(tmp_path, find_splits(tmp_path)) == {
        "train": ("labels/train.json", "data/train"),
        "val": ("labels/val.json", "data/val"),
    }


def test_without_validation_the_test_split_serves_and_it_is_said(tmp_path):
    for split in ("train", "test"):
        image(tmp_path / split / "a.jpg")
        coco_file(tmp_path / split / "_annotations.coco.json", ["a.jpg"])
    splits = find_splits(tmp_path)
    assert splits.val.img_folder == tmp_path / "test"
    assert splits.note == "no validation split: the test split is used for it"


def test_files_that_only_look_like_annotations_are_passed_over(tmp_path):
    image(tmp_path / "train" / "a.jpg")
    image(tmp_path / "val" / "a.jpg")
    (tmp_path / "instances_train.json").write_text("{broken")
    coco_file(tmp_path / "train_v2.json", ["a.jpg"])
    coco_file(tmp_path / "val.json", ["a.jpg"])
    assert find_splits(tmp_path).train.ann_file.name == "train_v2.json"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"no training annotations found \(COCO json files seen: none\)"),
        ({"train.json": ["a.jpg"]}, r"no validation annotations found \(.*seen: train.json\)"),
        (
            {"train.json": ["b.jpg"], "val.json": ["a.jpg"]},
            r"its images \(b.jpg, ...\) are nowhere",
        ),
        ({"train.json": [], "val.json": ["a.jpg"]}, r"train.json: lists no image; export it again"),
    ],
)
def test_what_is_missing_is_said_with_the_remedy(tmp_path, files, message):
    image(tmp_path / "a.jpg")
    for name, images in files.items():
        coco_file(tmp_path / name, images)
    with pytest.raises(DatasetError, match=message) as error:
        find_splits(tmp_path)
    assert "-u train_dataloader.dataset.ann_file=" in str(error.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DatasetError, match="no such folder; give the folder of a COCO data set"):
        find_splits(tmp_path / "nowhere")


def test_why_a_file_of_the_right_name_was_not_used_is_said(tmp_path):
    image(tmp_path / "a.jpg")
    coco_file(tmp_path / "val.json", ["a.jpg"])
    (tmp_path / "train.json").write_text("{")
    with pytest.raises(
        DatasetError, match=r"no training .*; not used: .*train\.json: is not valid"
    ):
        find_splits(tmp_path)


def test_odd_entries_and_names_are_no_obstacle(tmp_path):
    image(tmp_path / "a.jpg")
    for split in ("train", "val"):
        coco_file(tmp_path / f"{split}.json", ["a.jpg"])
        content = json.loads((tmp_path / f"{split}.json").read_text())
        content["images"] += [5, {"file_name": 7}, {"file_name": "x" * 300}, {}]
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    assert find_splits(tmp_path).train.img_folder == tmp_path
