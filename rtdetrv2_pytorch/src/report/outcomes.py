"""What a detector does with each image of a split, and what that adds up to.

Everything is counted at IoU 0.5 with the matching of the evaluator, so that the numbers here are
those of its recommended thresholds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..data.annotations import Annotations, ImageRecord
from ..data.metrics.evaluator import Found
from ..data.metrics.operating_point import (
    IOU_OF_A_HIT,
    OperatingCurve,
    box_overlaps,
    match_boxes,
    operating_curve,
)

_BINS = 10
_LOWEST_SCORE = 0.1  # of a detection that says something: hundreds of queries say "nothing here"


@dataclass(frozen=True)
class Outcome:
    """One image at a threshold: what was found, what was missed, and what is not there."""

    record: ImageRecord
    boxes: np.ndarray  # [n, 4] xyxy pixels, of detections with at least the threshold
    scores: np.ndarray  # [n]
    labels: np.ndarray  # [n]
    found: np.ndarray  # [n] place of the true box of the same class, -1 for none
    confused: np.ndarray  # [n] place of a true box of another class, -1 for none

    @property
    def is_true_box(self) -> np.ndarray:
        """[N] bool: boxes that are to be found; crowds are not."""
        return self.record.iscrowd == 0

    @property
    def num_boxes(self) -> int:
        """Boxes to be found."""
        return int(self.is_true_box.sum())

    @property
    def num_hits(self) -> int:
        """Boxes that were."""
        return int((self.found >= 0).sum())

    @property
    def num_false(self) -> int:
        """Detections that are no hits."""
        return len(self.found) - self.num_hits

    @property
    def is_missed(self) -> np.ndarray:
        """[N] bool: boxes that no detection of their class found."""
        missed = self.is_true_box
        missed[self.found[self.found >= 0]] = False
        return missed

    @cached_property
    def quality(self) -> float:
        """Panoptic quality without its classes: F1, in which a hit counts as much as it overlaps.

        Source: arXiv:1801.00868.
        """
        hits = self.found >= 0
        overlaps = box_overlaps(self.boxes[hits], self.record.boxes_xyxy, self.record.iscrowd > 0)
        total = overlaps[np.arange(len(overlaps)), self.found[hits]].sum()
        return float(2 * total / max(self.num_boxes + len(self.found), 1))


@dataclass(frozen=True)
class Calibration:
    """How often detections of a score are right: a bin each, from 0 to 1."""

    edges: np.ndarray  # [bins + 1]
    counts: np.ndarray  # [bins]
    scores: np.ndarray  # [bins] mean score, NaN where there is none
    precision: np.ndarray  # [bins] share of hits, NaN where there is none
    error: float  # expected calibration error of scores from 0.1 on; NaN without any


class Outcomes:
    """All images of a split that were looked at.

    Args:
        annotations: of the split.
        found: what a detector finds in it.
    """

    def __init__(self, annotations: Annotations, found: Found) -> None:
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
        """[K] boxes to be found, of each class."""
        totals = np.zeros(len(self.annotations.categories), dtype=np.int64)
        for place, _ in self.places:
            record = self.annotations[place]
            totals += np.bincount(record.labels[record.iscrowd == 0], minlength=len(totals))
        return totals

    def box_areas(self) -> np.ndarray:
        """[T] areas of all boxes to be found, square pixels."""
        records = [self.annotations[place] for place, _ in self.places]
        return np.concatenate([np.empty(0), *(r.area[r.iscrowd == 0] for r in records)])

    def curve(self, label: int | None = None) -> OperatingCurve:
        """Precision and recall at every threshold, of a class or of all."""
        chosen = self.counts if label is None else self.counts & (self.found.labels == label)
        wanted = self.num_boxes.sum() if label is None else self.num_boxes[label]
        hits = self._matched[chosen] >= 0
        return operating_curve(self.found.scores[chosen].astype(np.float64), hits, int(wanted))

    def calibration(self) -> Calibration:
        """Compare scores with how often they are right."""
        scores, hits = self.found.scores[self.counts], self._matched[self.counts] >= 0
        edges = np.linspace(0, 1, _BINS + 1)
        bins = np.clip(np.digitize(scores, edges) - 1, 0, _BINS - 1)
        counts = np.bincount(bins, minlength=_BINS)
        with np.errstate(invalid="ignore"):
            means = np.bincount(bins, scores, minlength=_BINS) / counts
            precision = np.bincount(bins, hits, minlength=_BINS) / counts
        is_used = (counts > 0) & (edges[:-1] >= _LOWEST_SCORE)
        gaps = np.abs(means - precision)[is_used]
        error = float(np.average(gaps, weights=counts[is_used])) if len(gaps) else float("nan")
        return Calibration(edges, counts, means, precision, error)

    def at(self, threshold: float) -> Iterator[Outcome]:
        """Every image, with the detections of at least this score."""
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
    """[n] what detections that are no hits may have taken for another class, best scores first."""
    confused = np.full(len(boxes), -1)
    overlaps = box_overlaps(boxes, record.boxes_xyxy, record.iscrowd > 0)
    overlaps[:, record.iscrowd > 0] = 0
    overlaps[:, found[found >= 0]] = 0
    left = np.flatnonzero(found < 0)
    for i in left[np.argsort(-scores[left], kind="stable")]:
        if overlaps.shape[1] and overlaps[i].max() >= IOU_OF_A_HIT:
            confused[i] = overlaps[i].argmax()
            overlaps[:, confused[i]] = 0
    return confused


def confusion_matrix(outcomes: Sequence[Outcome], num_classes: int) -> np.ndarray:
    """Count what is taken for what.

    Hits are counted first, so that the diagonal is what precision and recall are made of. What is
    left is paired across classes, best scores first.

    Returns:
        [K + 1, K + 1] int64: true classes down, found ones across. The last column holds boxes that
        were missed, the last row detections where nothing is.
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    for outcome in outcomes:
        truth = np.append(outcome.record.labels, num_classes)
        pair = np.where(outcome.found >= 0, outcome.found, outcome.confused)
        np.add.at(matrix, (truth[pair], outcome.labels), 1)  # -1 is the last: nothing
        missed = outcome.is_missed
        missed[pair[pair >= 0]] = False
        np.add.at(matrix, (outcome.record.labels[missed], num_classes), 1)
    return matrix
