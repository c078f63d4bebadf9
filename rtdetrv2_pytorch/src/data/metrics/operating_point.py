"""The operating point of a detector: the score threshold with the best F1 at IoU 0.5."""

from dataclasses import dataclass

import numpy as np

MATCH_IOU = 0.5


@dataclass(frozen=True)
class OperatingPoint:
    """The threshold with the highest F1 at IoU 0.5, for detections with at least this score."""

    threshold: float
    f1: float
    precision: float
    recall: float


@dataclass(frozen=True)
class OperatingCurve:
    """Precision, recall and F1 for every threshold, in descending order: [T] each.

    T is the number of distinct scores.
    """

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def operating_curve(scores: np.ndarray, is_hit: np.ndarray, num_boxes: int) -> OperatingCurve:
    """Compute precision, recall and F1 at every threshold.

    Args:
        scores: [N] of detections, in any order.
        is_hit: [N] bool, whether a detection is a true positive.
        num_boxes: number of ground-truth boxes.

    Returns:
        The curve; empty without detections or without ground truth.
    """
    if not len(scores) or not num_boxes:
        return OperatingCurve(*(np.empty(0) for _ in range(4)))
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(is_hit[order])
    is_last = np.append(scores[:-1] != scores[1:], True)  # of detections with equal scores
    scores, hits, used = scores[is_last], hits[is_last], np.flatnonzero(is_last) + 1
    return OperatingCurve(scores, hits / used, hits / num_boxes, 2 * hits / (used + num_boxes))


def best_operating_point(scores: np.ndarray, is_hit: np.ndarray, num_boxes: int) -> OperatingPoint:
    """Return the point of `operating_curve` with the highest F1.

    Returns:
        The point; threshold 1 and zeros without a true positive.
    """
    curve = operating_curve(scores, is_hit, num_boxes)
    if not len(curve.f1) or curve.f1.max() <= 0:
        return OperatingPoint(1.0, 0.0, 0.0, 0.0)
    best = int(curve.f1.argmax())
    return OperatingPoint(
        threshold=float(curve.thresholds[best]),
        f1=float(curve.f1[best]),
        precision=float(curve.precision[best]),
        recall=float(curve.recall[best]),
    )


def match_boxes(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    true_boxes: np.ndarray,
    true_labels: np.ndarray,
    is_crowd: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Match any number of detections of one image at IoU 0.5, as COCO does.

    In descending order of scores, each detection matches the unmatched box of its class with the
    highest IoU. A detection that only overlaps a crowd is neither a true nor a false positive.

    Args:
        boxes: [N, 4] xyxy pixels.
        scores: [N].
        labels: [N].
        true_boxes: [M, 4] xyxy pixels.
        true_labels: [M].
        is_crowd: [M] bool.

    Returns:
        [N] index of the matched ground-truth box or -1, and [N] bool whether the detection counts.
    """
    found, counts = np.full(len(boxes), -1), np.ones(len(boxes), dtype=bool)
    overlaps = box_overlaps(boxes, true_boxes, is_crowd)
    overlaps[(labels[:, None] != true_labels) | (overlaps < MATCH_IOU)] = 0
    in_crowd = (overlaps[:, is_crowd] > 0).any(axis=1)
    free = np.where(is_crowd, 0.0, overlaps)
    candidates = np.flatnonzero(free.any(axis=1))
    for i in candidates[np.argsort(-scores[candidates], kind="stable")]:
        place = int(free[i].argmax())
        if free[i, place] > 0:
            found[i] = place
            free[:, place] = 0
    counts[in_crowd & (found < 0)] = False
    return found, counts


def box_overlaps(boxes: np.ndarray, true_boxes: np.ndarray, is_crowd: np.ndarray) -> np.ndarray:
    """Return [N, M] IoU; for crowds, the fraction of the detection inside the crowd."""
    left, top, right, bottom = boxes.T[:, :, None]
    true_left, true_top, true_right, true_bottom = true_boxes.T
    width = np.minimum(right, true_right) - np.maximum(left, true_left)
    height = np.minimum(bottom, true_bottom) - np.maximum(top, true_top)
    common = np.maximum(width, 0) * np.maximum(height, 0)
    area = (right - left) * (bottom - top)
    true_area = (true_right - true_left) * (true_bottom - true_top)
    union = np.where(is_crowd, area, area + true_area - common)
    overlaps: np.ndarray = common / np.maximum(union, 1e-12)
    return overlaps
