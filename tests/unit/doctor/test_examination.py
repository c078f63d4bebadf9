"""All kinds of findings, compared with the behavior of the trainer."""

import json

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_pytorch.src.data.coco_dataset import CocoDetection
from rtdetrv2_pytorch.src.data.conversion import Split
from rtdetrv2_pytorch.src.data.finding_kinds import KINDS
from rtdetrv2_pytorch.src.data.images.opening import MAX_PIXELS_SETTING
from rtdetrv2_pytorch.src.data.severity import Action
from rtdetrv2_pytorch.src.doctor.examination import Options, examine
from rtdetrv2_pytorch.src.misc.errors import DatasetError
from tests.damaged_datasets import CASES, CocoFolder

# Only projects of the platform have these: tests/unit/app/test_data_check.py.
OF_PROJECTS = {"unknown_geometry", "class_not_selected", "left_out"}
# Only folders in other formats have these: tests/unit/data/readers.
OF_FORMATS = {
    "class_entry_malformed",
    "split_without_images",
    "path_outside_folder",
    "unknown_tag",
    "image_rejected",
    "image_ambiguous",
    "link_outside",
    "class_left_out",
    "object_left_out",
    "unlisted_image",
}
ALL = [
    pytest.param(kind, *case[1:], id=f"{kind}: {case[0]}")
    for kind, cases in CASES.items()
    for case in cases
]


def files(data, split):
    return Split(split, data.ann_file(split), data.root / split)


def examined(data, **options):
    data.write()
    return examine(
        "test", files(data, "train"), files(data, "val"), Options(**{"num_queries": 12, **options})
    )


def opened(data, split):
    train = CocoDetection(
        img_folder=str(data.root / "train"), ann_file=str(data.ann_file("train")), transforms=None
    )
    if split == "train":
        return train
    return CocoDetection(
        img_folder=str(data.root / "val"),
        ann_file=str(data.ann_file("val")),
        transforms=None,
        categories=train.categories,
    )


def found(report, kind):
    return [finding for finding in report.findings if finding.kind.name == kind]


@pytest.fixture
def data(tmp_path):
    return CocoFolder(tmp_path / "data")


@pytest.fixture
def low_limit(monkeypatch):
    """Lower the limit, so that an image of 200 x 100 is very large."""
    monkeypatch.setenv(MAX_PIXELS_SETTING, "60000")


def test_valid_data_has_no_findings(data):
    report = examined(data)
    assert report.findings == []
    assert report.summary() == (
        "The trainer uses this data. 5 images: 5 used, 0 skipped; 5 boxes: 5 used, 0 skipped; "
        "no findings"
    )
    assert [split.classes for split in report.splits] == [{"cat": 2, "dog": 1}] + [
        {"cat": 1, "dog": 1}
    ]


def test_every_kind_has_a_case():
    assert set(CASES) | OF_PROJECTS | OF_FORMATS == set(KINDS)
    assert not set(CASES) & (OF_PROJECTS | OF_FORMATS)


@pytest.mark.parametrize(("kind", "spoil", "where", "detail"), ALL)
@pytest.mark.usefixtures("low_limit")
def test_case_is_found_and_trainer_agrees(data, kind, spoil, where, detail):
    spoil(data)
    report = examined(data)
    offenders = found(report, kind)
    assert offenders, [str(f) for f in report.findings]
    assert where in offenders[0].where
    assert detail in offenders[0].detail
    assert bool(report.refusals) == (KINDS[kind].action is Action.REFUSES)

    for split, summary in zip(("train", "val"), report.splits, strict=False):
        images_given, boxes_given = listed(data, split)
        assert summary.images.used + summary.images.skipped == images_given
        assert summary.boxes.used + summary.boxes.skipped == boxes_given
        try:
            dataset = opened(data, split)
        except DatasetError:
            assert KINDS[kind].action is Action.REFUSES
            continue
        items = [dataset[i] for i in range(len(dataset))]
        used = [target for _, target in filter(None, items)]
        assert summary.images.used == len(used)
        assert summary.boxes.used == sum(len(target["labels"]) for target in used)
        names = [name for name, count in summary.classes.items() for _ in range(count)]
        labels = sorted(int(label) for target in used for label in target["labels"])
        assert [dataset.categories.names[label] for label in labels] == names


def listed(data, split):
    """Count images and boxes of a file without the trainer."""
    try:
        content = json.loads(data.ann_file(split).read_text(encoding="utf-8-sig"))
        return len(content["images"]), len(content["annotations"])
    except (OSError, ValueError, TypeError):
        return 0, 0


@pytest.mark.parametrize("kind", [k for k in CASES if KINDS[k].action is Action.REFUSES])
def test_trainer_and_doctor_reject_the_same_data(data, kind):
    for _, spoil, _, _ in CASES[kind][:1]:
        spoil(data)
    data.write()
    with pytest.raises(DatasetError):
        for split in ("train", "val"):
            dataset = opened(data, split)
            dataset.check_boxes()


@pytest.mark.parametrize("kind", [k for k in CASES if KINDS[k].action is Action.SKIPS])
def test_skipped_data_does_not_affect_other_data(data, kind):
    CASES[kind][0][1](data)
    report = examined(data)
    assert not report.refusals
    assert report.splits[0].images.used >= 3
    assert report.splits[0].boxes.used >= 3
    assert report.images.skipped + report.boxes.skipped > 0


def test_all_cases_at_once(data, low_limit):
    """All accepted cases in one data set: each is found, and the counts add up."""
    together = [
        kind
        for kind in CASES
        # Cases that write the file themselves cannot be combined.
        if KINDS[kind].action is not Action.REFUSES and kind != "byte_order_mark"
    ]
    # Boxes of other cases would go to the last image.
    alone = ("objects_unusable", "image_without_objects")
    together.sort(key=lambda kind: kind in alone)
    for kind in together:
        CASES[kind][0][1](data)
    report = examined(data)
    assert {f.kind.name for f in report.findings} >= set(together)
    assert not report.refusals
    for split in ("train", "val"):
        images_given, boxes_given = listed(data, split)
        summary = next(s for s in report.splits if s.name == split)
        assert summary.images.given == images_given
        assert summary.boxes.given == boxes_given


def test_clipped_box_is_drawn_as_annotated(data):
    data.box("train", (50, 40, 30, 30))
    report = examined(data)
    assert found(report, "box_out_of_bounds")[0].boxes == [(50, 40, 80, 70)]
    assert report.splits[0].clipped == 1
    target = opened(data, "train")[2][1]
    assert target["boxes"].tolist() == [[8, 8, 40, 40], [50, 40, 64, 48]]


def test_rotated_images_have_the_size_that_the_trainer_uses(data):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.zeros((48, 64, 3), np.uint8))
    for name, size in (("up.jpg", (48, 64)), ("stored.jpg", (64, 48))):
        stored.save(data.root / "train" / name, exif=exif)
        data.add("train", name, b"nothing", width=size[0], height=size[1])
    report = examined(data)
    sizes = [f.picture.size_wh for f in found(report, "exif_rotated")]
    assert sizes == [(48, 64), (64, 48)]
    dataset = opened(data, "train")
    assert [dataset[i][1]["orig_size"].tolist() for i in (3, 4)] == [[48, 64], [64, 48]]


def test_tiny_objects_depend_on_the_training_size(data):
    data.box("train", (1, 1, 1, 9))  # of 64 pixels across
    assert not found(examined(data), "object_tiny")  # 10 pixels
    assert found(examined(data, size_hw=(640, 192)), "object_tiny")  # 3
    assert found(examined(data, size_hw=(640, 32)), "object_vanishing")  # one half


def test_ap_counts_as_many_detections_in_all_images(data):
    """Those for the image with the most objects, as the evaluator does."""
    for i in range(101):
        data.box("val", (i % 40, i // 40, 20, 20))
    data.add("val", "dense.png")
    for i in range(309):  # it has one
        data.box("val", (i % 40, i // 40, 20, 20))
    details = {f.where: f.detail for f in found(examined(data), "above_coco_limit")}
    assert details == {
        "val1.png": "101 of 'cat': AP counts 310 detections",
        "dense.png": "310 of 'cat': AP counts 310 detections",
    }


def test_progress_callback_counts_images_and_may_raise(data):
    data.write()
    seen = []
    arguments = ("test", files(data, "train"), files(data, "val"), Options())
    examine(*arguments, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 5) for i in range(1, 6)]

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examine(*arguments, on_progress=stop)


def test_images_outside_the_folder_are_not_shown(data):
    CASES["outside_folder"][0][1](data)
    away = data.content["train"]["images"][-1]
    away.update(width=20)  # something to show
    report = examined(data)
    assert [f.picture for f in report.findings if f.where == "away.png"] == [None] * 2
