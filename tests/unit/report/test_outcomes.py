"""Outcomes per image, by hand on a few boxes and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from rtdetrv2_pytorch.src.data.annotation_arrays import Annotations, ImageRecord
from rtdetrv2_pytorch.src.data.categories import CategoryTable
from rtdetrv2_pytorch.src.data.metrics.evaluator import DetectionTable
from rtdetrv2_pytorch.src.data.metrics.operating_point import best_operating_point
from rtdetrv2_pytorch.src.report.outcomes import Outcomes, confusion_matrix


def record(image_id, boxes, labels, crowd=()):
    boxes = np.array(boxes, dtype=float).reshape(-1, 4)
    iscrowd = np.isin(np.arange(len(boxes)), crowd).astype(np.int64)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    labels = np.array(labels, dtype=np.int64)
    return ImageRecord(f"{image_id}.jpg", image_id, (100, 100), boxes, labels, area, iscrowd)


def split(*records, names=("cat", "dog")):
    ids = tuple(range(1, len(names) + 1))
    return Annotations(records, CategoryTable(ids, tuple(names)))


def found(*images):
    """Build `DetectionTable` from (image id, [(box, score, label), ...])."""
    rows = [row for _, rows in images for row in rows]
    return DetectionTable(
        image_ids=np.array([id_ for id_, _ in images]),
        counts=np.array([len(rows) for _, rows in images]),
        boxes=np.array([r[0] for r in rows], dtype=np.float32).reshape(-1, 4),
        scores=np.array([r[1] for r in rows], dtype=np.float32),
        labels=np.array([r[2] for r in rows], dtype=np.int64),
    )


A, B, C = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)
SHIFTED = (0, 0, 10, 8)  # IoU 0.8 with A


def test_confusion_matrix_by_hand():
    truth = split(record(1, [A, B, C], [0, 0, 1]))
    rows = [
        (SHIFTED, 0.9, 0),  # the cat at A
        (B, 0.8, 1),  # the cat at B, predicted as dog
        ((60, 60, 70, 70), 0.7, 1),  # on background
        (C, 0.3, 1),  # below the threshold, so the dog at C is missed
    ]
    (outcome,) = Outcomes(truth, found((1, rows))).at(0.5)
    expected = [[1, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert confusion_matrix([outcome], 2).tolist() == expected
    assert (outcome.num_boxes, outcome.num_hits, outcome.num_false) == (3, 1, 2)
    assert outcome.is_missed.tolist() == [False, True, True]
    assert outcome.confused.tolist() == [-1, 1, -1]
    # IoU 0.8 divided by the mean of 3 boxes and 3 detections.
    assert outcome.quality == pytest.approx(0.8 / 3)


def test_hit_takes_precedence_over_confusion_with_a_higher_score():
    truth = split(record(1, [A], [0]))
    rows = [(A, 0.9, 1), (A, 0.6, 0)]
    matrix = confusion_matrix(list(Outcomes(truth, found((1, rows))).at(0.5)), 2)
    assert matrix.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_each_box_is_confused_once_by_the_highest_score():
    truth = split(record(1, [A], [0]))
    rows = [(A, 0.6, 1), (SHIFTED, 0.9, 1)]
    (outcome,) = Outcomes(truth, found((1, rows))).at(0.5)
    assert outcome.confused.tolist() == [-1, 0]
    assert confusion_matrix([outcome], 2).tolist() == [[0, 1, 0], [0, 0, 0], [0, 1, 0]]


def test_crowds_are_ignored():
    truth = split(record(1, [(0, 0, 50, 50), C], [0, 1], crowd=[0]))
    rows = [((5, 5, 15, 15), 0.9, 0), (C, 0.8, 1)]
    outcomes = Outcomes(truth, found((1, rows)))
    (outcome,) = outcomes.at(0.5)
    assert confusion_matrix([outcome], 2).tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert outcomes.num_boxes.tolist() == [0, 1]
    assert outcome.num_false == 0


def test_images_without_boxes_or_detections():
    truth = split(record(1, [], []), record(2, [A], [0]), record(3, [], []))
    outcomes = Outcomes(truth, found((1, [(A, 0.9, 0)]), (2, []), (3, [])))
    first, second, third = outcomes.at(0.5)
    assert (first.num_false, first.quality) == (1, 0.0)
    assert (second.is_missed.tolist(), second.quality) == ([True], 0.0)
    assert (third.num_false, third.quality) == (0, 0.0)
    assert confusion_matrix([first, second, third], 2).tolist() == [[0, 0, 1], [0] * 3, [1, 0, 0]]


def random_split(images=40):
    rng = np.random.default_rng(3)
    records, results = [], []
    for number in range(images):
        corners = rng.uniform(0, 60, (rng.integers(0, 6), 2))
        boxes = np.concatenate((corners, corners + rng.uniform(8, 30, corners.shape)), axis=1)
        labels = rng.integers(0, 3, len(boxes))
        records.append(record(number, boxes, labels))
        rows = [
            (box + rng.normal(0, 2, 4), round(rng.uniform(0, 1), 2), label)
            for box, label in zip(boxes, labels, strict=True)
        ]
        rows += [((1, 1, 30, 30), round(rng.uniform(0, 0.6), 2), 1)]
        results.append((number, rows))
    return split(*records, names=("a", "b", "c")), found(*results)


def test_curves_match_scikit_learn():
    truth, results = random_split()
    outcomes = Outcomes(truth, results)
    for label in (None, 0, 1, 2):
        chosen = np.ones(len(results.scores), bool) if label is None else results.labels == label
        hits = outcomes._matched[chosen] >= 0
        wanted = len(truth.labels) if label is None else (truth.labels == label).sum()
        precision, recall, thresholds = precision_recall_curve(hits, results.scores[chosen])
        curve = outcomes.curve(label)
        np.testing.assert_allclose(curve.thresholds[::-1], thresholds)
        np.testing.assert_allclose(curve.precision[::-1], precision[:-1])
        # scikit-learn counts only boxes with a detection.
        np.testing.assert_allclose(curve.recall[::-1], recall[:-1] * hits.sum() / wanted)
        best = best_operating_point(results.scores[chosen].astype(float), hits, int(wanted))
        assert best.f1 == pytest.approx(curve.f1.max())
        assert best.threshold == curve.thresholds[curve.f1.argmax()]


def test_matrix_sums_equal_boxes_and_detections():
    truth, results = random_split()
    outcomes = Outcomes(truth, results)
    matrix = confusion_matrix(list(outcomes.at(0.4)), 3)
    assert matrix[:-1].sum(axis=1).tolist() == outcomes.num_boxes.tolist()
    is_used = results.scores >= np.float32(0.4)
    expected = np.bincount(results.labels[is_used], minlength=3)
    assert matrix[:, :-1].sum(axis=0).tolist() == expected.tolist()
    curve = outcomes.curve()
    at = np.flatnonzero(curve.thresholds >= np.float32(0.4))[-1]
    assert np.trace(matrix) == round(curve.recall[at] * outcomes.num_boxes.sum())


def test_calibration_by_hand():
    truth = split(record(1, [A, B, C], [0, 0, 0]))
    nowhere = (70, 70, 80, 80)
    rows = [(A, 0.95, 0), (B, 0.91, 0), (nowhere, 0.92, 0), (C, 0.55, 0), (nowhere, 0.05, 0)]
    calibration = Outcomes(truth, found((1, rows))).calibration()
    assert calibration.counts.tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 3]
    assert calibration.precision[[0, 5, 9]] == pytest.approx([0, 1, 2 / 3])
    assert calibration.scores[9] == pytest.approx((0.95 + 0.91 + 0.92) / 3)
    # The lowest bin is not counted.
    mean = (0.95 + 0.91 + 0.92) / 3
    assert calibration.error == pytest.approx((3 * (mean - 2 / 3) + 0.45) / 4)


def test_outcomes_without_detections():
    outcomes = Outcomes(split(record(1, [A], [0])), found((1, [])))
    assert len(outcomes.curve().f1) == 0
    assert np.isnan(outcomes.calibration().error)
    assert outcomes.num_boxes.tolist() == [1, 0]
