"""Export verification: limits, batches and reports."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rtdetrv2_pytorch.src.data.annotation_arrays import Annotations, ImageRecord
from rtdetrv2_pytorch.src.data.categories import CategoryTable
from rtdetrv2_pytorch.src.data.metrics.evaluator import ClassMetrics, Evaluation
from rtdetrv2_pytorch.src.data.metrics.operating_point import OperatingPoint
from rtdetrv2_pytorch.src.deploy import parity
from rtdetrv2_pytorch.src.deploy.accuracy import ap_losses, class_ap
from rtdetrv2_pytorch.src.deploy.comparison_images import ComparisonImages
from rtdetrv2_pytorch.src.deploy.model_card import ModelCard
from rtdetrv2_pytorch.src.deploy.parity import (
    check_parity,
    raise_if_failed,
    remove_parity,
    save_parity,
)
from rtdetrv2_pytorch.src.misc.errors import ExportError

NAMES = ("cat", "dog")
NUM_IMAGES = 20
# Label, box in pixels of a 100x80 image, score; shifted by the number of the image.
FOUND = [
    (0, (10.0, 10.0, 40.0, 40.0), 0.9),
    (1, (50.0, 20.0, 70.0, 60.0), 0.6),
    (0, (20.0, 30.0, 60.0, 50.0), 0.2),
]


class Scripted:
    """A runtime with scripted detections; it identifies images by their gray level."""

    kind = "scripted"
    device = torch.device("cpu")

    def __init__(self, found=FOUND, *, precision="fp32", max_batch_size=None, slot=None):
        self.card = ModelCard(class_names=NAMES, input_size_hw=(8, 10), precision=precision)
        self.max_batch_size = max_batch_size
        self.found = found
        self.slot = slot  # returns the results of this slot for all images of a batch
        self.batches = []

    def __call__(self, images, sizes_wh):
        self.batches.append(len(images))
        numbers = images[:, 0, 0, 0].tolist()
        if self.slot is not None:
            numbers = [numbers[self.slot]] * len(numbers)
        rows = [[(k, [c + n for c in box], s) for k, box, s in self.found] for n in numbers]
        labels, boxes, scores = (
            torch.tensor([[row[part] for row in image] for image in rows]) for part in range(3)
        )
        return labels.long(), boxes.float(), scores.float()


def make_comparison(*, annotated=True, num_cats=NUM_IMAGES):
    """Uniform images, with the two confident detections of `FOUND` as annotations.

    Only the first `num_cats` images have a cat.
    """
    images = [np.full((80, 100, 3), n, np.uint8) for n in range(NUM_IMAGES)]
    if not annotated:
        return ComparisonImages(images, "some images")
    records = [
        ImageRecord(
            file_name=f"{n}.png",
            image_id=100 + n,
            size_wh=(100, 80),
            boxes_xyxy=np.array([box for _, box, _ in FOUND[first:2]], np.float64) + n,
            labels=np.array([0, 1])[first:],
            area=np.array([900.0, 800.0])[first:],
            iscrowd=np.zeros(2 - first, np.int64),
        )
        for n in range(NUM_IMAGES)
        for first in [0 if n < num_cats else 1]
    ]
    annotations = Annotations(records, CategoryTable((1, 2), NAMES))
    return ComparisonImages(
        images, "some images", annotations, tuple(100 + n for n in range(NUM_IMAGES))
    )


def check(found=FOUND, *, annotated=True, **options):
    return check_parity(
        Scripted(found, **options),
        Scripted(),
        make_comparison(annotated=annotated),
        file="best.onnx",
    )


def changed(place, *, label=None, move=0.0, score=0.0):
    """Return `FOUND` with one detection changed."""
    result = list(FOUND)
    old_label, (x1, y1, x2, y2), old_score = result[place]
    box = (x1 + move, y1, x2, y2)
    result[place] = (old_label if label is None else label, box, old_score + score)
    return sorted(result, key=lambda row: -row[2])


def test_equal_detections_pass():
    report = check()
    assert report.failures == []
    assert (report.max_score_difference, report.max_box_difference_px) == (0, 0)
    # Both directions, two confident detections per image: 20 in batches, 16 with batch size 1.
    assert report.num_detections == 2 * 2 * (20 + 16)
    assert report.matched_share == 1
    assert report.ap_pytorch == report.ap_exported == pytest.approx(1.0)
    assert report.batch_sizes == [1, 7]
    assert report.sizes_wh == [(100, 80)]
    raise_if_failed(report)


def test_batches_and_batch_size_1():
    exported = Scripted()
    check_parity(exported, Scripted(), make_comparison(), file="x")
    assert exported.batches == [7, 7, 6] + [1] * 16 + [7]
    small = Scripted(max_batch_size=4)
    report = check_parity(small, Scripted(), make_comparison(), file="x")
    assert small.batches == [4] * 5 + [1] * 16 + [4]
    assert report.batch_sizes == [1, 4]


def test_results_of_another_slot_are_detected():
    """As from an exporter that fixes the batch size; batch size 1 is correct."""
    report = check(slot=0, annotated=False)
    assert report.max_box_difference_px == 6  # the boxes of slot 6 are shifted by 6 pixels
    assert "boxes differ by 6 pixels (limit: 0.5)" in report.failures[0]
    assert "the answer for an image depends on its batch" in report.failures[1]
    assert report.batch_box_difference_px == 6


class Wavering(Scripted):
    """The last places of a batch get wrong boxes, also for equal images."""

    def __init__(self, move, **options):
        super().__init__(**options)
        self.move = move

    def __call__(self, images, sizes_wh):
        labels, boxes, scores = super().__call__(images, sizes_wh)
        if len(images) == parity.BATCH and (images == images[0]).all():
            boxes[3:] += self.move
        return labels, boxes, scores


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_equal_images_in_a_batch_must_have_equal_detections(precision):
    wavering = Wavering(20.0, precision=precision)
    report = check_parity(wavering, Scripted(), make_comparison(), file="best.engine")
    (failure,) = report.failures  # no batch of different images is wrong
    assert failure == (
        "the answer for an image depends on its batch: scores differ by 0 and boxes by 20 pixels "
        "from those with batch size 1, 82.6% of the detections are equal"
    )
    assert (report.max_box_difference_px, report.batch_box_difference_px) == (0, 20)
    # Both directions of 16 images in batches and of 7 places, four of which have no counterpart.
    assert report.batch_matched_share == pytest.approx(1 - 4 / 23)
    nearly = Wavering(0.2, precision=precision)
    report = check_parity(nearly, Scripted(), make_comparison(), file="best.engine")
    assert report.failures == []
    assert report.batch_box_difference_px == pytest.approx(0.2, abs=1e-4)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (changed(0, score=-0.0009), None),
        (changed(0, score=-0.0012), "scores differ by 0.0012 (limit: 0.001)"),
        (changed(2, score=0.05), None),  # not confident
        (changed(1, move=0.4), None),
        (changed(1, move=-0.6), "boxes differ by 0.6 pixels (limit: 0.5)"),
        (changed(2, move=5), None),
        (changed(0, label=1), "scores differ by inf"),
        (FOUND[:1], "AP 0.5000 instead of 1.0000 (limit: a difference of 0.001)"),
    ],
)
def test_limits_of_float32(found, message):
    failures = check(found).failures
    if message is None:
        assert failures == []
    else:
        assert any(failure.startswith(message) for failure in failures), failures


def test_order_of_equal_scores_is_ignored():
    """Detections are matched one to one."""
    twins = [(0, (10.0, 10.0, 20.0, 20.0), 0.5), (0, (30.0, 30.0, 40.0, 40.0), 0.5)]
    images = make_comparison(annotated=False)
    assert check_parity(Scripted(twins[::-1]), Scripted(twins), images, file="x").failures == []
    same = [twins[0], twins[0]]
    report = check_parity(Scripted(same), Scripted(twins), images, file="x")
    assert report.max_box_difference_px == 20


def test_additional_detections_fail():
    more = [*FOUND[:2], (1, (0.0, 0.0, 9.0, 9.0), 0.5)]
    report = check(more, annotated=False)
    assert report.max_score_difference == pytest.approx(math.inf)


def test_half_precision_is_compared_by_ap():
    moved = changed(0, score=-0.02, move=1.0)
    report = check(moved, precision="fp16")
    assert report.failures == []
    assert report.max_score_difference == pytest.approx(0.02, abs=1e-6)
    (failure,) = check(FOUND[:1], precision="fp16").failures
    assert failure == "AP 0.5000 instead of 1.0000 (limit: a loss of 0.005)"


def test_half_precision_may_be_better():
    better = check_parity(
        Scripted(precision="fp16"), Scripted(FOUND[:1]), make_comparison(), file="best.onnx"
    )
    assert (better.ap_pytorch, better.ap_exported) == pytest.approx((0.5, 1.0))
    assert better.failures == []


@pytest.mark.parametrize(
    ("num_boxes", "class_loss", "total_loss", "failures"),
    [
        (20, 0.019, 0.0049, []),
        (19, 0.021, 0.0049, []),
        (20, 0.021, 0.0049, ["AP 0.4790 instead of 0.5000 for cat (limit: a loss of 0.02)"]),
        (19, 0.021, 0.0051, ["AP 0.5949 instead of 0.6000 (limit: a loss of 0.005)"]),
    ],
)
def test_limits_of_int8(num_boxes, class_loss, total_loss, failures):
    best = OperatingPoint(threshold=0.5, precision=1.0, recall=1.0, f1=1.0)

    def measured(class_ap, total):
        cat, dog = (
            ClassMetrics(name=name, ap=ap, ap50=1.0, num_boxes=count, best=best)
            for name, ap, count in (("cat", class_ap, num_boxes), ("dog", 0.7, 100))
        )
        return Evaluation(stats={"AP": total}, classes=[cat, dog], best=best)

    before, after = measured(0.5, 0.6), measured(0.5 - class_loss, 0.6 - total_loss)
    assert ap_losses(0.6, 0.6 - total_loss, class_ap(before, after)) == failures


class WithFaultyImage(Scripted):
    """One box in the first image has IoU 0.77 with its object: too low for 4 of 10 thresholds."""

    def __init__(self, place, **options):
        super().__init__(**options)
        self.place = place

    def __call__(self, images, sizes_wh):
        labels, boxes, scores = super().__call__(images, sizes_wh)
        width = boxes[:, self.place, 2] - boxes[:, self.place, 0]
        boxes[:, self.place, 2] -= 0.23 * width * (images[:, 0, 0, 0] == 0)
        return labels, boxes, scores


@pytest.mark.parametrize(
    ("precision", "num_boxes", "fails"),
    [("int8", 20, True), ("int8", 19, False), ("fp16", 20, False)],
)
def test_int8_is_compared_class_by_class(precision, num_boxes, fails):
    """One class loses what the other gains: the total AP is the same."""
    images = make_comparison(num_cats=num_boxes)
    report = check_parity(
        WithFaultyImage(0, precision=precision), WithFaultyImage(1), images, file="best.onnx"
    )
    assert report.ap_exported == pytest.approx(report.ap_pytorch, abs=4e-3)
    assert ("cat" in report.class_ap) == (num_boxes == 20)
    expected = ["AP 0.9574 instead of 1.0000 for cat (limit: a loss of 0.02)"] if fails else []
    assert report.failures == expected


def test_half_precision_without_annotations_is_compared_by_matches():
    assert check(changed(0, move=1.0), precision="fp16", annotated=False).failures == []
    (failure,) = check(changed(0, move=9.0), precision="fp16", annotated=False).failures
    # IoU 21/30; each image has one counterpart of two.
    assert failure.startswith("50.0% of the detections have a counterpart (limit: 98% with IoU 0.9")


def test_top_detections_are_compared_if_none_is_confident():
    faint = [(k, box, score / 10) for k, box, score in FOUND]
    images = make_comparison(annotated=False)
    good = check_parity(Scripted(faint), Scripted(faint), images, file="x")
    assert good.failures == []
    assert good.compared == "(none above 0.3: the top 10 of each image)"
    assert good.num_detections == 2 * 3 * 36
    wrong = [(k, box, score / 10 + 0.002) for k, box, score in FOUND]
    assert check_parity(Scripted(wrong), Scripted(faint), images, file="x").failures


def test_ap_of_the_trained_sampling_is_reported():
    report = check_parity(
        Scripted(FOUND[:1]),
        Scripted(FOUND[:1]),
        make_comparison(),
        file="x",
        trained=Scripted(),
    )
    assert report.failures == []
    assert (report.ap_exported, report.ap_trained) == pytest.approx((0.5, 1.0))


def test_images_without_annotations_do_not_count_for_ap():
    plain = make_comparison()
    more = ComparisonImages(
        [*plain.images, np.full((40, 50, 3), 30, np.uint8)],
        plain.origin,
        plain.annotations,
        plain.image_ids,
    )
    report = check_parity(Scripted(), Scripted(), more, file="x")
    assert report.ap_exported == pytest.approx(1.0)
    assert report.sizes_wh == [(50, 40), (100, 80)]


def test_progress_is_reported():
    seen = []
    check_parity(
        Scripted(),
        Scripted(),
        make_comparison(),
        file="x",
        on_progress=lambda *args: seen.append(args),
    )
    assert seen[-1] == ("comparing scripted", 63, 63)
    assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})


def test_error_contains_limits_and_remedy():
    with pytest.raises(ExportError) as caught:
        raise_if_failed(check(changed(1, move=2.0)))
    message = str(caught.value)
    assert message.startswith("best.onnx: results on some images differ from scripted: ")
    assert "boxes differ by 2 pixels (limit: 0.5)" in message
    assert "The file was removed" in message
    with pytest.raises(ExportError, match="export in fp32"):
        raise_if_failed(check(FOUND[:1], precision="fp16"))


def test_reports_of_several_files_share_parity_json(tmp_path):
    good = check()
    save_parity(good, tmp_path)
    save_parity(check(changed(0, label=1), annotated=False), tmp_path / ".")
    other = replace(good, file="best.engine")
    save_parity(other, tmp_path)
    content = json.loads((tmp_path / "parity.json").read_text())
    assert set(content) == {"best.onnx", "best.engine"}
    assert content["best.onnx"]["max_score_difference"] is None  # JSON has no infinity
    assert content["best.engine"]["ap_exported"] == pytest.approx(1.0)
    remove_parity(tmp_path / "best.onnx")
    assert set(json.loads((tmp_path / "parity.json").read_text())) == {"best.engine"}
    remove_parity(tmp_path / "best.engine")
    assert list(tmp_path.iterdir()) == []
    remove_parity(tmp_path / "best.engine")


def test_tf32_is_disabled_only_during_the_comparison():
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = True
        with parity.float32_throughout():
            assert [backend.allow_tf32 for backend in backends] == [False, False]
        assert [backend.allow_tf32 for backend in backends] == [True, True]
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value
