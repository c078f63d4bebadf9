"""Evidence for annotation errors in one image: labels against the detections of a network.

The network must not have been trained on these labels, or it repeats their errors.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torchvision.ops import nms

from rtdetrv2_pytorch.src.data.annotation_arrays import ImageRecord
from rtdetrv2_pytorch.src.data.metrics.operating_point import box_overlaps

MIN_SCORE = 0.05  # detections below it are ignored
_SAME_OBJECT_IOU = 0.5  # a detection of another class at this IoU is of the same object
_SUPPORT_IOU = 0.3  # a detection at this IoU is evidence that there is an object
_MIN_PAIR_IOU = 0.1  # of a label and the detection that shows how it should be
_CROWD_SHARE = 0.5  # a detection inside a crowd region by this fraction needs no label


@dataclass(frozen=True)
class Boxes:
    """Labels or detections of one image.

    Attributes:
        boxes: [N, 4] float64 xyxy in pixels.
        labels: [N] int64 classes.
        scores: [N] float64; relative to those of the class for detections, see `Reference`.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """How strongly the detections of an image contradict its labels, from 0 to 1.

    Attributes:
        unsupported: [N] per label: no detection of any class shows an object there.
        wrong_class: [N] per label: a detection of another class fits its box.
        loose_box: [N] per label: a detection of its class fits another box.
        rival: [N] index of the detection behind `wrong_class`, or -1.
        partner: [N] index of the detection behind `loose_box`, or -1.
        missed: [D] per detection: there is no label for it.
    """

    unsupported: np.ndarray
    wrong_class: np.ndarray
    loose_box: np.ndarray
    rival: np.ndarray
    partner: np.ndarray
    missed: np.ndarray


def objects_of(record: ImageRecord) -> Boxes:
    """Return the labels of an image without crowd regions."""
    chosen = record.iscrowd == 0
    boxes = record.boxes_xyxy[chosen]
    return Boxes(boxes, record.labels[chosen], np.ones(len(boxes)))


def evidence(labels: Boxes, found: Boxes, crowds: np.ndarray) -> Evidence:
    """Compare the labels of an image with detections.

    Labels and detections are paired one to one, so that a neighbor is not taken for the object.

    Args:
        labels: of the image.
        found: detections; several of one object may have different classes.
        crowds: [C, 4] xyxy regions in which objects have no labels of their own.
    """
    overlaps = _overlaps(found.boxes, labels.boxes)  # [D, N]
    is_same_class = found.labels[:, None] == labels.labels
    scores = np.minimum(found.scores, 1)[:, None]
    support = np.where(overlaps >= _SUPPORT_IOU, scores, 0).max(axis=0, initial=0)
    fits = np.where(overlaps >= _SAME_OBJECT_IOU, scores, 0)
    own = np.where(is_same_class, fits, 0).max(axis=0, initial=0)
    others = np.where(is_same_class, 0, fits)
    other = others.max(axis=0, initial=0)

    primary = _primary(found)
    pairs = _pairs(overlaps[primary], scores[primary])
    partner = np.full(len(labels.boxes), -1)
    partner[pairs[1]] = primary[pairs[0]]
    paired = np.flatnonzero(partner >= 0)
    loose = np.zeros(len(labels.boxes))
    which = partner[paired]
    is_own = is_same_class[which, paired]
    loose[paired] = np.where(is_own, scores[which, 0] * (1 - overlaps[which, paired]), 0)

    missed = np.zeros(len(found.boxes))
    single = np.setdiff1d(primary, which)
    is_free = overlaps[single].max(axis=1, initial=0) < _SUPPORT_IOU
    is_free &= _shares(found.boxes[single], crowds) < _CROWD_SHARE
    missed[single] = np.where(is_free, scores[single, 0], 0)
    has_rival = other > own
    best = others.argmax(axis=0) if len(found.boxes) else np.zeros(len(labels.boxes), np.int64)
    return Evidence(
        unsupported=1 - support,
        wrong_class=np.where(has_rival, other - own, 0),
        loose_box=loose,
        rival=np.where(has_rival, best, -1),
        partner=np.where(loose > 0, partner, -1),
        missed=missed,
    )


def own_scores(labels: Boxes, found: Boxes) -> np.ndarray:
    """Return the highest score of a detection of its class at each label: [N], 0 without one."""
    fits = _overlaps(found.boxes, labels.boxes) >= _SAME_OBJECT_IOU
    fits &= found.labels[:, None] == labels.labels
    best: np.ndarray = np.where(fits, found.scores[:, None], 0).max(axis=0, initial=0)
    return best


def _primary(found: Boxes) -> np.ndarray:
    """Return the indices of one detection per object, in descending order of scores."""
    boxes, scores = torch.from_numpy(found.boxes), torch.from_numpy(found.scores)
    order: np.ndarray = nms(boxes, scores, _SAME_OBJECT_IOU).numpy()
    return order


def _pairs(overlaps: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pair detections and labels one to one with the largest total of score x IoU."""
    gain = np.where(overlaps >= _MIN_PAIR_IOU, overlaps * scores, 0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    is_pair = gain[rows, columns] > 0
    return rows[is_pair], columns[is_pair]


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    return box_overlaps(boxes, others, np.zeros(len(others), dtype=bool))


def _shares(boxes: np.ndarray, crowds: np.ndarray) -> np.ndarray:
    """Return the largest fraction of each box inside a crowd region."""
    shares = box_overlaps(boxes, crowds, np.ones(len(crowds), dtype=bool))
    largest: np.ndarray = shares.max(axis=1, initial=0)
    return largest
