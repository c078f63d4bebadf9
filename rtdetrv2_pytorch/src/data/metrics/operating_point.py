"""At which score a detector is best used: hits at IoU 0.5, and the threshold of the best F1."""

from dataclasses import dataclass

import numpy as np

IOU_OF_A_HIT = 0.5


@dataclass(frozen=True)
class OperatingPoint:
    """Where F1 at IoU 0.5 is highest: use detections with at least this score."""

    threshold: float
    f1: float
    precision: float
    recall: float


@dataclass(frozen=True)
class OperatingCurve:
    """What every choice of a threshold gives, highest threshold first: [T] each.

    Equal scores cannot be told apart by a threshold, so T is the number of different ones.
    """

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def operating_curve(scores: np.ndarray, is_hit: np.ndarray, num_boxes: int) -> OperatingCurve:
    """Precision, recall and F1 at every threshold.

    Args:
        scores: [N] of detections, any order.
        is_hit: [N] bool.
        num_boxes: boxes to be found.

    Returns:
        The curve; empty where nothing is found or there is nothing to find.
    """
    if not len(scores) or not num_boxes:
        return OperatingCurve(*(np.empty(0) for _ in range(4)))
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(is_hit[order])
    is_choice = np.append(scores[:-1] != scores[1:], True)
    scores, hits, used = scores[is_choice], hits[is_choice], np.flatnonzero(is_choice) + 1
    return OperatingCurve(scores, hits / used, hits / num_boxes, 2 * hits / (used + num_boxes))


def best_operating_point(scores: np.ndarray, is_hit: np.ndarray, num_boxes: int) -> OperatingPoint:
    """The point of `operating_curve` with the highest F1.

    Returns:
        The point; threshold 1 and zeros where nothing is found.
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
    """Match the detections of one image as COCO does, at IoU 0.5, however many there are.

    Best scores choose first; each takes the free box of its class with the highest IoU. A
    detection that finds only a crowd is neither a hit nor a mistake.

    Args:
        boxes: [N, 4] xyxy pixels.
        scores: [N].
        labels: [N].
        true_boxes: [M, 4] xyxy pixels.
        true_labels: [M].
        is_crowd: [M] bool.

    Returns:
        [N] place of the true box that each detection finds, -1 for none, and [N] bool whether it
        counts at all.
    """
    found, counts = np.full(len(boxes), -1), np.ones(len(boxes), dtype=bool)
    overlaps = box_overlaps(boxes, true_boxes, is_crowd)
    overlaps[(labels[:, None] != true_labels) | (overlaps < IOU_OF_A_HIT)] = 0
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
    """[N, M] IoU; with a crowd the part of the detection that lies in it."""
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
