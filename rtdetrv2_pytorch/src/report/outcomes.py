"""Hits, misses and false positives per image, and the statistics of a split.

Detections are matched at IoU 0.5 with the evaluator's matching, so the numbers agree with its
recommended thresholds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..data.annotation_arrays import Annotations, ImageRecord
from ..data.metrics.evaluator import DetectionTable
from ..data.metrics.operating_point import (
    MATCH_IOU,
    OperatingCurve,
    box_overlaps,
    match_boxes,
    operating_curve,
)

_BINS = 10
_MIN_SCORE = 0.1  # below it are the hundreds of queries that found no object


@dataclass(frozen=True)
class Outcome:
    """Detections and annotations of one image at a score threshold."""

    record: ImageRecord
    boxes: np.ndarray  # [n, 4] xyxy pixels, detections at or above the threshold
    scores: np.ndarray  # [n]
    labels: np.ndarray  # [n]
    found: np.ndarray  # [n] index of the matched box of the same class, or -1
    confused: np.ndarray  # [n] index of an overlapping box of another class, or -1

    @property
    def is_true_box(self) -> np.ndarray:
        """[N] bool: boxes that count as objects; crowds do not."""
        return self.record.iscrowd == 0

    @property
    def num_boxes(self) -> int:
        """Number of objects."""
        return int(self.is_true_box.sum())

    @property
    def num_hits(self) -> int:
        """Number of detected objects."""
        return int((self.found >= 0).sum())

    @property
    def num_false(self) -> int:
        """Number of false positives."""
        return len(self.found) - self.num_hits

    @property
    def is_missed(self) -> np.ndarray:
        """[N] bool: objects without a detection of their class."""
        missed = self.is_true_box
        missed[self.found[self.found >= 0]] = False
        return missed

    @cached_property
    def quality(self) -> float:
        """Class-agnostic panoptic quality: F1 in which each hit counts with its IoU.

        Source: arXiv:1801.00868.
        """
        hits = self.found >= 0
        overlaps = box_overlaps(self.boxes[hits], self.record.boxes_xyxy, self.record.iscrowd > 0)
        total = overlaps[np.arange(len(overlaps)), self.found[hits]].sum()
        return float(2 * total / max(self.num_boxes + len(self.found), 1))


@dataclass(frozen=True)
class Calibration:
    """Precision of detections by score, in equal bins from 0 to 1."""

    edges: np.ndarray  # [bins + 1]
    counts: np.ndarray  # [bins]
    scores: np.ndarray  # [bins] mean score, NaN for an empty bin
    precision: np.ndarray  # [bins] fraction of hits, NaN for an empty bin
    error: float  # expected calibration error of scores above 0.1; NaN without detections


class Outcomes:
    """All evaluated images of a split."""

    def __init__(self, annotations: Annotations, found: DetectionTable) -> None:
        self.annotations = annotations
        self.found = found
        places = {int(id_): place for place, id_ in enumerate(annotations.image_ids)}
        self.places = [(places[id_], part) for id_, part in found.slices().items()]
        self._matched = np.full(len(found.scores), -1)
        self.counts = np.ones(len(found.scores), dtype=bool)
        for place, part in self.places:
            truth = annotations[place]
            self._matched[part], self.counts[part] = match_boxes(
                found.boxes[part],
                found.scores[part],
                found.labels[part],
                truth.boxes_xyxy,
                truth.labels,
                truth.iscrowd > 0,
            )

    @cached_property
    def num_boxes(self) -> np.ndarray:
        """[K] number of objects per class."""
        totals = np.zeros(len(self.annotations.categories), dtype=np.int64)
        for place, _ in self.places:
            record = self.annotations[place]
            totals += np.bincount(record.labels[record.iscrowd == 0], minlength=len(totals))
        return totals

    def box_areas(self) -> np.ndarray:
        """[T] areas of all objects in square pixels."""
        records = [self.annotations[place] for place, _ in self.places]
        return np.concatenate([np.empty(0), *(r.area[r.iscrowd == 0] for r in records)])

    def curve(self, label: int | None = None) -> OperatingCurve:
        """Compute precision and recall at every threshold, for one class or for all."""
        chosen = self.counts if label is None else self.counts & (self.found.labels == label)
        wanted = self.num_boxes.sum() if label is None else self.num_boxes[label]
        hits = self._matched[chosen] >= 0
        return operating_curve(self.found.scores[chosen].astype(np.float64), hits, int(wanted))

    def calibration(self) -> Calibration:
        """Compare scores with the fraction of hits."""
        scores, hits = self.found.scores[self.counts], self._matched[self.counts] >= 0
        edges = np.linspace(0, 1, _BINS + 1)
        bins = np.clip(np.digitize(scores, edges) - 1, 0, _BINS - 1)
        counts = np.bincount(bins, minlength=_BINS)
        with np.errstate(invalid="ignore"):
            means = np.bincount(bins, scores, minlength=_BINS) / counts
            precision = np.bincount(bins, hits, minlength=_BINS) / counts
        is_used = (counts > 0) & (edges[:-1] >= _MIN_SCORE)
        gaps = np.abs(means - precision)[is_used]
        error = float(np.average(gaps, weights=counts[is_used])) if len(gaps) else float("nan")
        return Calibration(edges, counts, means, precision, error)

    def at(self, threshold: float) -> Iterator[Outcome]:
        """Yield every image with its detections at or above this score."""
        for place, part in self.places:
            record = self.annotations[place]
            is_used = self.counts[part] & (self.found.scores[part] >= threshold)
            boxes, labels = self.found.boxes[part][is_used], self.found.labels[part][is_used]
            matched = self._matched[part][is_used]
            yield Outcome(
                record=record,
                boxes=boxes,
                scores=self.found.scores[part][is_used],
                labels=labels,
                found=matched,
                confused=_confused(boxes, self.found.scores[part][is_used], matched, record),
            )


def _confused(
    boxes: np.ndarray, scores: np.ndarray, found: np.ndarray, record: ImageRecord
) -> np.ndarray:
    """Assign false positives to overlapping boxes of other classes, highest scores first: [n]."""
    confused = np.full(len(boxes), -1)
    overlaps = box_overlaps(boxes, record.boxes_xyxy, record.iscrowd > 0)
    overlaps[:, record.iscrowd > 0] = 0
    overlaps[:, found[found >= 0]] = 0
    left = np.flatnonzero(found < 0)
    for i in left[np.argsort(-scores[left], kind="stable")]:
        if overlaps.shape[1] and overlaps[i].max() >= MATCH_IOU:
            confused[i] = overlaps[i].argmax()
            overlaps[:, confused[i]] = 0
    return confused


def confusion_matrix(outcomes: Sequence[Outcome], num_classes: int) -> np.ndarray:
    """Compute the confusion matrix.

    Hits are counted first, so the diagonal agrees with precision and recall. The remaining
    detections and boxes are paired across classes, highest scores first.

    Returns:
        [K + 1, K + 1] int64: rows are annotated classes, columns are predicted classes. The last
        column holds missed objects, the last row detections on background.
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    for outcome in outcomes:
        truth = np.append(outcome.record.labels, num_classes)
        pair = np.where(outcome.found >= 0, outcome.found, outcome.confused)
        np.add.at(matrix, (truth[pair], outcome.labels), 1)  # -1 is the last row: background
        missed = outcome.is_missed
        missed[pair[pair >= 0]] = False
        np.add.at(matrix, (outcome.record.labels[missed], num_classes), 1)
    return matrix
