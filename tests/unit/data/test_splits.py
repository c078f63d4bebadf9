"""Splits of data set folders in all layouts and formats."""

import json
from pathlib import Path

import pytest
from PIL import Image

from rtdetrv2_pytorch.src.data.coco_dataset import CocoDetection
from rtdetrv2_pytorch.src.data.splits import find_split, find_splits
from rtdetrv2_pytorch.src.doctor.data_report import Counts
from rtdetrv2_pytorch.src.doctor.examination import Options, examine
from rtdetrv2_pytorch.src.misc.errors import DatasetError

CATEGORIES = [{"id": 1, "name": "cat"}]


def coco_file(path: Path, names):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": CATEGORIES}))


def picture(path: Path, size_wh=(4, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size_wh).save(path)


def relative(folder, splits):
    return {
        name: (
            str(getattr(splits, name).ann_file.relative_to(folder)),
            str(getattr(splits, name).img_folder.relative_to(folder)),
        )
        for name in ("train", "val")
    }


def test_coco_layout(tmp_path):
    for split in ("train2017", "val2017"):
        picture(tmp_path / split / "000001.jpg")
        for kind in ("captions", "instances", "person_keypoints"):
            coco_file(tmp_path / "annotations" / f"{kind}_{split}.json", ["000001.jpg"])
    assert relative(tmp_path, find_splits(tmp_path, tmp_path / "out")) == {
        "train": ("annotations/instances_train2017.json", "train2017"),
        "val": ("annotations/instances_val2017.json", "val2017"),
    }


def test_roboflow_export(tmp_path):
    for split in ("train", "valid", "test"):
        picture(tmp_path / split / "a.jpg")
        coco_file(tmp_path / split / "_annotations.coco.json", ["a.jpg"])
    assert relative(tmp_path, find_splits(tmp_path, tmp_path / "out")) == {
        "train": ("train/_annotations.coco.json", "train"),
        "val": ("valid/_annotations.coco.json", "valid"),
    }


def test_images_in_other_folders_and_unrelated_json_files(tmp_path):
    """The layout of the BCCD folder."""
    for split in ("train", "val", "test"):
        picture(tmp_path / "supervisely" / split / "img" / f"{split}_a.jpg")
        ann = tmp_path / "supervisely" / split / "ann" / f"{split}_a.jpg.json"
        ann.parent.mkdir(parents=True)
        ann.write_text("{}")
        coco_file(tmp_path / "coco" / f"instances_{split}.json", [f"{split}_a.jpg"])
    (tmp_path / "counts.json").write_text("{}")
    assert relative(tmp_path, find_splits(tmp_path, tmp_path / "out")) == {
        "train": ("coco/instances_train.json", "supervisely/train/img"),
        "val": ("coco/instances_val.json", "supervisely/val/img"),
    }


def test_bccd(bccd):
    assert relative(bccd, find_splits(bccd, bccd)) == {
        "train": ("coco/instances_train.json", "supervisely/train/img"),
        "val": ("coco/instances_val.json", "supervisely/val/img"),
    }


def test_file_names_with_folders_in_a_shared_image_folder(tmp_path):
    picture(tmp_path / "images" / "sub" / "a.jpg")
    picture(tmp_path / "images" / "sub" / "b.jpg")
    coco_file(tmp_path / "train.json", ["sub/a.jpg"])
    coco_file(tmp_path / "val.json", ["sub/b.jpg"])
    assert relative(tmp_path, find_splits(tmp_path, tmp_path / "out")) == {
        "train": ("train.json", "images"),
        "val": ("val.json", "images"),
    }


def test_equal_file_names_are_located_in_the_folder_of_their_split(tmp_path):
    for split in ("train", "val"):
        picture(tmp_path / "data" / split / "0.jpg")
        coco_file(tmp_path / "ann" / f"{split}.json", ["0.jpg"])
        coco_file(tmp_path / "labels" / f"{split}.json", ["0.jpg"])
    assert relative(tmp_path, find_splits(tmp_path, tmp_path / "out")) == {
        "train": ("labels/train.json", "data/train"),
        "val": ("labels/val.json", "data/val"),
    }


def test_test_split_replaces_a_missing_validation_split(tmp_path):
    for split in ("train", "test"):
        picture(tmp_path / split / "a.jpg")
        coco_file(tmp_path / split / "_annotations.coco.json", ["a.jpg"])
    splits = find_splits(tmp_path, tmp_path / "out")
    assert splits.val.img_folder == tmp_path / "test"
    assert splits.note == (
        "Splits of the data: training train (1 image), validation test (1 image); no validation "
        "split found; the test split is used for validation"
    )


def test_invalid_annotation_files_are_ignored(tmp_path):
    picture(tmp_path / "train" / "a.jpg")
    picture(tmp_path / "val" / "a.jpg")
    (tmp_path / "instances_train.json").write_text("{broken")
    coco_file(tmp_path / "train_v2.json", ["a.jpg"])
    coco_file(tmp_path / "val.json", ["a.jpg"])
    assert find_splits(tmp_path, tmp_path / "out").train.ann_file.name == "train_v2.json"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"test.json": ["a.jpg"]}, r"only a test split \(test\) found, nothing to train on"),
        (
            {"train.json": ["b.jpg"], "val.json": ["a.jpg"]},
            r"no usable training image .*listed images whose file is missing .1.: train: b.jpg",
        ),
        ({"train.json": [], "val.json": ["a.jpg"]}, r"train lists no images; export it again"),
        (
            {"train.json": ["", "a\0.jpg"], "val.json": ["a.jpg"]},
            r"train lists no images with an id and a valid file name \(2 image entries\)",
        ),
        ({"train.json": ["a.jpg"]}, r"no usable validation image .* Random split of 1 image"),
    ],
)
def test_missing_splits_and_images_raise_with_the_remedy(tmp_path, files, message):
    picture(tmp_path / "a.jpg")
    for name, images in files.items():
        coco_file(tmp_path / name, images)
    with pytest.raises(DatasetError, match=message) as error:
        find_splits(tmp_path, tmp_path / "out")
    assert "-u train_dataloader.dataset.ann_file=" in str(error.value)


def test_split_to_evaluate_that_lists_no_usable_image(tmp_path):
    picture(tmp_path / "a.jpg")
    coco_file(tmp_path / "train.json", ["a.jpg"])
    coco_file(tmp_path / "val.json", [""])
    with pytest.raises(DatasetError, match=r"val lists no images with an id .*\(1 image entry\)"):
        find_split(tmp_path, "val", tmp_path / "out")


def test_split_to_evaluate_keeps_classes_that_training_does_not_list(tmp_path):
    for name, class_name in (("train", "cat"), ("val_1", "cat"), ("val_2", "dog")):
        picture(tmp_path / f"{name}.jpg")
        coco_file(tmp_path / f"{name}.json", [f"{name}.jpg"])
        content = json.loads((tmp_path / f"{name}.json").read_text())
        content["categories"][0]["name"] = class_name
        content["annotations"] = [{"image_id": 0, "category_id": 1, "bbox": [0, 0, 2, 2]}]
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    split, _ = find_split(tmp_path, "val", tmp_path / "out")
    expected = {"val_1.jpg": [("cat", 0, 0, 2, 2)], "val_2.jpg": [("dog", 0, 0, 2, 2)]}
    assert boxes_by_image(split) == expected


def test_folder_with_a_test_split_only_is_not_trained_on(tmp_path):
    for name in "ab":
        picture(tmp_path / "test" / f"{name}.jpg")
    coco_file(tmp_path / "test" / "labels.json", ["a.jpg", "b.jpg"])
    with pytest.raises(DatasetError, match=r"only a test split \(test\) found"):
        find_splits(tmp_path, tmp_path / "out")


def test_missing_folder(tmp_path):
    with pytest.raises(DatasetError, match="no such folder; give the folder of a data set"):
        find_splits(tmp_path / "nowhere", tmp_path)


def test_findings_name_rejected_files(tmp_path):
    for name in "ab":
        picture(tmp_path / f"{name}.jpg")
    coco_file(tmp_path / "val.json", ["a.jpg", "b.jpg"])
    coco_file(tmp_path / "instances_train.json", ["a.jpg"])
    coco_file(tmp_path / "instances_val.json", ["b.jpg"])
    (tmp_path / "instances_test.json").write_text('{"images": ')
    (finding,) = find_splits(tmp_path, tmp_path / "out").findings
    assert (finding.kind_name, finding.where) == ("annotation_malformed", "instances_test.json")
    assert finding.detail.startswith("is not valid JSON at line 1")


def test_invalid_image_entries_are_ignored(tmp_path):
    picture(tmp_path / "a.jpg")
    for split in ("train", "val"):
        coco_file(tmp_path / f"{split}.json", ["a.jpg"])
        content = json.loads((tmp_path / f"{split}.json").read_text())
        content["images"] += [5, {"file_name": 7}, {"file_name": "x" * 300}, {}]
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    assert find_splits(tmp_path, tmp_path / "out").train.img_folder == tmp_path


# Other formats: converted to COCO files


def boxes_by_image(split):
    """{file name: [(class, x1, y1, x2, y2)]} of a converted file, as the trainer reads it."""
    data = CocoDetection(
        img_folder=str(split.img_folder), ann_file=str(split.ann_file), transforms=None
    )
    names = data.categories.names
    return {
        record.file_name: [
            (names[label], *(round(side, 6) for side in box))
            for label, box in zip(record.labels, record.boxes_xyxy.tolist(), strict=True)
        ]
        for record in (data.annotations[i] for i in range(len(data)))
    }


def write(path: Path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def yolo(folder):
    write(folder / "data.yaml", "names: [cat, dog]\ntrain: images/train\nval: images/val\n")
    for split in ("train", "val"):
        picture(folder / "images" / split / f"{split}.png", (100, 50))
    write(
        folder / "labels/train/train.txt", "1 0.5 0.5 0.2 0.4\n0 0.1 0.2 0.5 0.2 0.5 0.8\n7 1 1 1 1"
    )
    write(folder / "labels/val/val.txt", "0 0.95 0.5 0.2 0.4\n")
    return {
        "train": {"train.png": [("dog", 40, 15, 60, 35), ("cat", 10, 10, 50, 40)]},
        "val": {"val.png": [("cat", 85, 15, 100, 35)]},
    }


def voc(folder):
    def xml(name, *corners):
        sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
        size = "<size><width>100</width><height>50</height></size>"
        item = f"<object><name>{name}</name><bndbox>{box}</bndbox></object>"
        return f"<annotation>{size}{item}</annotation>"

    root = folder / "VOCdevkit" / "VOC2012"
    for split, corners in (("train", (1, 1, 20, 10)), ("test", (11, 21, 130, 40))):
        picture(root / "JPEGImages" / f"{split}.jpg", (100, 50))
        write(root / "Annotations" / f"{split}.xml", xml("cat", *corners))
        write(root / "ImageSets" / "Main" / f"{split}.txt", split)
    return {
        "train": {"train.jpg": [("cat", 0, 0, 20, 10)]},
        "val": {"test.jpg": [("cat", 10, 20, 100, 40)]},
    }


def supervisely(folder):
    write(folder / "meta.json", {"classes": [{"title": "cat", "shape": "any"}], "tags": []})
    for split in ("train", "val"):
        picture(folder / split / "img" / f"{split}.png", (100, 50))
        objects = [
            {"classTitle": "cat", "geometryType": shape, "points": {"exterior": [[9, 5], [19, 24]]}}
            for shape in ("rectangle", "point")
        ]
        content = {"size": {"width": 100, "height": 50}, "objects": objects}
        write(folder / split / "ann" / f"{split}.png.json", content)
    return {
        "train": {"train.png": [("cat", 9, 5, 20, 25)]},
        "val": {"val.png": [("cat", 9, 5, 20, 25)]},
    }


SKIPPED = {
    "yolo": [{"unknown_class": 1}, {"box_out_of_bounds": 1}],
    "voc": [{}, {"box_out_of_bounds": 1}],
    "supervisely": [{"unknown_geometry": 1}, {"unknown_geometry": 1}],
}


@pytest.mark.parametrize("make", [yolo, voc, supervisely])
def test_other_formats_are_converted(tmp_path, make):
    expected = make(tmp_path / "data")
    splits = find_splits(tmp_path / "data", tmp_path / "out")
    for name in ("train", "val"):
        split = getattr(splits, name)
        assert boxes_by_image(split) == expected[name]
        assert (split.ann_file, split.num_images) == (tmp_path / f"out/instances_{name}.json", 1)
    found = [split.findings.counts() for split in (splits.train, splits.val)]
    assert found == SKIPPED[make.__name__]
    assert ("the test split is used for validation" in splits.note) == (make is voc)


def test_doctor_counts_objects_skipped_by_the_conversion(tmp_path):
    yolo(tmp_path / "data")
    picture(tmp_path / "data" / "images" / "train" / "bad.png")
    (tmp_path / "data" / "labels" / "train" / "bad.txt").write_bytes(b"\xff\xfe\x00")
    splits = find_splits(tmp_path / "data", tmp_path / "out")
    report = examine("pets", splits.train, splits.val, Options())
    train, val = report.splits
    assert (train.images, train.boxes, train.clipped) == (Counts(1, 1), Counts(2, 1), 0)
    assert (val.images, val.boxes, val.clipped) == (Counts(1, 0), Counts(1, 0), 1)
    assert {(f.kind.name, f.split, f.where) for f in report.findings} >= {
        ("unknown_class", "train", "images/train/train.png"),
        ("annotation_malformed", "train", "images/train/bad.png"),
        ("box_out_of_bounds", "val", "images/val/val.png"),
    }
