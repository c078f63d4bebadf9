"""The gate: what it lets through, what it stops, and that it sees every slot of a batch."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rtdetrv2_pytorch.src.data.annotations import Annotations, ImageRecord
from rtdetrv2_pytorch.src.data.categories import CategoryTable
from rtdetrv2_pytorch.src.deploy import parity
from rtdetrv2_pytorch.src.deploy.comparison_images import ComparisonImages
from rtdetrv2_pytorch.src.deploy.model_card import ModelCard
from rtdetrv2_pytorch.src.deploy.parity import check_parity, remove_report, require, write_report
from rtdetrv2_pytorch.src.misc.errors import ExportError

NAMES = ("cat", "dog")
NUM_IMAGES = 20
# Label, box in pixels of a 100x80 image, score; of every image, moved by its number.
FOUND = [
    (0, (10.0, 10.0, 40.0, 40.0), 0.9),
    (1, (50.0, 20.0, 70.0, 60.0), 0.6),
    (0, (20.0, 30.0, 60.0, 50.0), 0.2),
]


class Scripted:
    """A runtime that knows each image by its gray level, and finds what a script says."""

    kind = "scripted"
    device = torch.device("cpu")

    def __init__(self, found=FOUND, *, precision="fp32", max_batch_size=None, slot=None):
        self.card = ModelCard(class_names=NAMES, input_size_hw=(8, 10), precision=precision)
        self.max_batch_size = max_batch_size
        self.found = found
        self.slot = slot  # gives the results of this slot to all images of a batch
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


def samples(*, annotated=True):
    """Images of one gray each, with the two confident objects of `FOUND` as ground truth."""
    images = [np.full((80, 100, 3), n, np.uint8) for n in range(NUM_IMAGES)]
    if not annotated:
        return ComparisonImages(images, "some images")
    records = [
        ImageRecord(
            file_name=f"{n}.png",
            image_id=100 + n,
            size_wh=(100, 80),
            boxes_xyxy=np.array([box for _, box, _ in FOUND[:2]], np.float64) + n,
            labels=np.array([0, 1]),
            area=np.array([900.0, 800.0]),
            iscrowd=np.zeros(2, np.int64),
        )
        for n in range(NUM_IMAGES)
    ]
    annotations = Annotations(records, CategoryTable((1, 2), NAMES))
    return ComparisonImages(
        images, "some images", annotations, tuple(100 + n for n in range(NUM_IMAGES))
    )


def check(found=FOUND, *, annotated=True, **options):
    return check_parity(
        Scripted(found, **options), Scripted(), samples(annotated=annotated), file="best.onnx"
    )


def changed(place, *, label=None, move=0.0, score=0.0):
    """`FOUND` with one detection changed."""
    result = list(FOUND)
    old_label, (x1, y1, x2, y2), old_score = result[place]
    box = (x1 + move, y1, x2, y2)
    result[place] = (old_label if label is None else label, box, old_score + score)
    return sorted(result, key=lambda row: -row[2])


def test_equal_results_pass():
    report = check()
    assert report.failures == []
    assert (report.max_score_difference, report.max_box_difference_px) == (0, 0)
    # Both directions, two confident ones an image: 20 in batches, 16 alone.
    assert report.num_detections == 2 * 2 * (20 + 16)
    assert report.matched_share == 1
    assert report.ap_pytorch == report.ap_exported == pytest.approx(1.0)
    assert report.batch_sizes == [1, 7]
    assert report.sizes_wh == [(100, 80)]
    require(report)


def test_images_run_in_batches_and_alone():
    exported = Scripted()
    check_parity(exported, Scripted(), samples(), file="x")
    assert exported.batches == [7, 7, 6] + [1] * 16
    small = Scripted(max_batch_size=4)
    report = check_parity(small, Scripted(), samples(), file="x")
    assert small.batches == [4] * 5 + [1] * 16
    assert report.batch_sizes == [1, 4]


def test_a_slot_that_gets_anothers_results_is_seen():
    """Alone everything is right: an exporter that fixed the batch does this."""
    report = check(slot=0, annotated=False)
    assert report.max_box_difference_px == 6  # slot 6 is an image moved by 6 pixels
    assert "boxes differ by 6 pixels (limit: 0.5)" in report.failures[0]


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


def test_detections_may_change_places():
    """Equal scores have no order: each is compared with the nearest, and with only one."""
    twins = [(0, (10.0, 10.0, 20.0, 20.0), 0.5), (0, (30.0, 30.0, 40.0, 40.0), 0.5)]
    images = samples(annotated=False)
    assert check_parity(Scripted(twins[::-1]), Scripted(twins), images, file="x").failures == []
    same = [twins[0], twins[0]]
    report = check_parity(Scripted(same), Scripted(twins), images, file="x")
    assert report.max_box_difference_px == 20


def test_additional_detections_are_seen():
    more = [*FOUND[:2], (1, (0.0, 0.0, 9.0, 9.0), 0.5)]
    report = check(more, annotated=False)
    assert report.max_score_difference == pytest.approx(math.inf)


def test_half_precision_is_judged_by_its_ap():
    moved = changed(0, score=-0.02, move=1.0)
    report = check(moved, precision="fp16")
    assert report.failures == []
    assert report.max_score_difference == pytest.approx(0.02, abs=1e-6)
    (failure,) = check(FOUND[:1], precision="fp16").failures
    assert failure == "AP 0.5000 instead of 1.0000 (limit: a loss of 0.005)"


def test_half_precision_may_be_better():
    better = check_parity(
        Scripted(precision="fp16"), Scripted(FOUND[:1]), samples(), file="best.onnx"
    )
    assert (better.ap_pytorch, better.ap_exported) == pytest.approx((0.5, 1.0))
    assert better.failures == []


def test_half_precision_without_ground_truth_has_to_find_the_same():
    assert check(changed(0, move=1.0), precision="fp16", annotated=False).failures == []
    (failure,) = check(changed(0, move=9.0), precision="fp16", annotated=False).failures
    # IoU 21/30; each image has one counterpart of two.
    assert failure.startswith("50.0% of the detections are found again (limit: 98% with IoU 0.9")


def test_without_confident_detections_the_best_are_compared():
    faint = [(k, box, score / 10) for k, box, score in FOUND]
    images = samples(annotated=False)
    good = check_parity(Scripted(faint), Scripted(faint), images, file="x")
    assert good.failures == []
    assert good.compared == "(none above 0.3: the 10 best of each image)"
    assert good.num_detections == 2 * 3 * 36
    wrong = [(k, box, score / 10 + 0.002) for k, box, score in FOUND]
    assert check_parity(Scripted(wrong), Scripted(faint), images, file="x").failures


def test_another_sampling_is_judged_by_its_own_network_and_reported():
    report = check_parity(
        Scripted(FOUND[:1]),
        Scripted(FOUND[:1]),
        samples(),
        file="x",
        trained=Scripted(),
    )
    assert report.failures == []
    assert (report.ap_exported, report.ap_trained) == pytest.approx((0.5, 1.0))


def test_crops_beyond_the_annotated_images_do_not_count_for_ap():
    plain = samples()
    more = ComparisonImages(
        [*plain.images, np.full((40, 50, 3), 30, np.uint8)],
        plain.origin,
        plain.annotations,
        plain.image_ids,
    )
    report = check_parity(Scripted(), Scripted(), more, file="x")
    assert report.ap_exported == pytest.approx(1.0)
    assert report.sizes_wh == [(50, 40), (100, 80)]


def test_progress_counts_every_image():
    seen = []
    check_parity(
        Scripted(), Scripted(), samples(), file="x", on_progress=lambda *args: seen.append(args)
    )
    assert seen[-1] == ("comparing scripted", 56, 56)
    assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})


def test_the_error_has_the_numbers_and_a_remedy():
    with pytest.raises(ExportError) as caught:
        require(check(changed(1, move=2.0)))
    message = str(caught.value)
    assert message.startswith("best.onnx: its results on some images are not those of PyTorch: ")
    assert "boxes differ by 2 pixels (limit: 0.5)" in message
    assert "No file was kept" in message
    with pytest.raises(ExportError, match="export in fp32"):
        require(check(FOUND[:1], precision="fp16"))


def test_reports_of_several_files_lie_in_one(tmp_path):
    good = check()
    write_report(good, tmp_path)
    write_report(check(changed(0, label=1), annotated=False), tmp_path / ".")
    other = replace(good, file="best.engine")
    write_report(other, tmp_path)
    content = json.loads((tmp_path / "parity.json").read_text())
    assert set(content) == {"best.onnx", "best.engine"}
    assert content["best.onnx"]["max_score_difference"] is None  # JSON has no infinity
    assert content["best.engine"]["ap_exported"] == pytest.approx(1.0)
    remove_report(tmp_path / "best.onnx")
    assert set(json.loads((tmp_path / "parity.json").read_text())) == {"best.engine"}
    remove_report(tmp_path / "best.engine")
    assert list(tmp_path.iterdir()) == []
    remove_report(tmp_path / "best.engine")


def test_float32_is_float32_only_inside():
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
