"""Probabilities of annotation errors, from errors that are planted into the labels.

The detections stay as they are, so a planted error costs one comparison. The evidence of labels as
they are is a mixture of correct labels and of errors, whose distribution the planted errors show.
The largest fraction of errors that fits into the mixture is the assumed one, and Bayes' rule gives
the probability of an error at each value (class prior estimation: Elkan and Noto, KDD 2008; Scott,
AISTATS 2015).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from rtdetrv2_pytorch.src.data.metrics.operating_point import box_overlaps

from .evidence import Boxes, Evidence, evidence

_MAX_PLANTED = 400  # per kind
_SHIFT = 0.3  # of the size of a box
_TRIES = 20  # to place an invented box away from all labels
_MAX_OVERLAP = 0.1  # IoU of an invented box with any label
_FOUND_IOU = 0.5
_MIN_TAIL = 0.2  # fraction of the planted errors that a prior is estimated from
_BINS = 12
_MAX_PROBABILITY = 0.99  # the labels are a sample: nothing is certain
_MAX_PRIOR = 0.3  # above it, the detections are too inaccurate to judge labels


@dataclass(frozen=True)
class ComparedImage:
    """Labels of an image and detections of a network that was not trained on them."""

    labels: Boxes
    found: Boxes
    crowds: np.ndarray  # [C, 4] xyxy
    size_wh: tuple[float, float]


@dataclass(frozen=True)
class Posterior:
    """Probability of an error as a nondecreasing function of the evidence.

    Attributes:
        values: [n] increasing evidence.
        probabilities: [n] at these values; linear in between, and 0 below the first one.
        prior: estimated errors as a fraction of `total`; NaN if the evidence is too weak, so that
            all probabilities are 0.
    """

    values: np.ndarray
    probabilities: np.ndarray
    prior: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return the probability of each value."""
        if not len(self.values):
            return np.zeros(len(values))
        result: np.ndarray = np.interp(values, self.values, self.probabilities, left=0)
        return result


def fit(observed: np.ndarray, planted: np.ndarray, *, total: int) -> Posterior:
    """Estimate the probability of an error by its evidence.

    Args:
        observed: [n] evidence of all candidates.
        planted: [m] evidence of planted errors; 0 where an error leaves no evidence.
        total: the number that the prior is a fraction of.
    """
    if not len(planted) or planted.max() <= 0 or not len(observed):
        return Posterior(np.empty(0), np.empty(0), 0.0)
    edges = np.unique(np.quantile(planted[planted > 0], np.linspace(0, 1, _BINS + 1)))
    planted_above = np.array([(planted >= edge).mean() for edge in edges])
    observed_above = np.array([(observed >= edge).sum() for edge in edges])
    # By one standard error of a count.
    upper = np.maximum(observed_above + np.sqrt(observed_above), 1) / total
    tail = planted_above >= _MIN_TAIL  # empty if few planted errors leave evidence
    prior = float((upper[tail] / planted_above[tail]).min(initial=np.inf))
    if prior > _MAX_PRIOR:
        return Posterior(np.empty(0), np.empty(0), float("nan"))

    lower = edges[:-1] if len(edges) > 1 else edges
    bounds = np.append(lower, np.inf)
    of_errors = np.histogram(planted, bounds)[0] / len(planted)
    of_all = np.histogram(observed, bounds)[0] / total
    weights = np.maximum(of_all, 0.5 / total)  # a bin may have no candidate
    smooth = isotonic_regression(prior * of_errors / weights, weights=weights).x
    smooth = smooth.clip(0, _MAX_PROBABILITY)
    centers = (lower + np.append(lower[1:], edges[-1])) / 2
    return Posterior(
        values=np.append(edges[0], centers),
        probabilities=np.append(smooth[0], smooth),
        prior=prior,
    )


def planted_values(
    images: Sequence[ComparedImage], num_classes: int, *, seed: int
) -> dict[str, np.ndarray]:
    """Plant one error at a time, and return the evidence that each one leaves, by kind.

    Args:
        images: with their labels as they are, most of which must be correct.
        num_classes: of the dataset.
        seed: of the choice of labels and errors.
    """
    owners = [(i, n) for i, image in enumerate(images) for n in range(len(image.labels.boxes))]
    rng = np.random.default_rng(seed)
    chosen = [owners[k] for k in rng.permutation(len(owners))[:_MAX_PLANTED]]
    plant: dict[str, Callable[[ComparedImage, int], float | None]] = {
        "missed": _plant_missed,
        "unsupported": lambda image, n: _plant_unsupported(image, n, rng),
        "wrong_class": lambda image, n: _plant_class(image, n, num_classes, rng),
        "loose_box": lambda image, n: _plant_shift(image, n, rng),
    }
    values = {}
    for kind, planted in plant.items():
        found = [planted(images[i], n) for i, n in chosen]
        values[kind] = np.array([value for value in found if value is not None])
    return values


def shifted(box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move a box, [4] xyxy, by 30 % of its size, to the left or right and up or down."""
    size = box[2:] - box[:2]
    step = size * _SHIFT * rng.choice([-1.0, 1.0], 2)
    moved: np.ndarray = box + np.concatenate((step, step))
    return moved


def invented(image: ComparedImage, size_wh: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a box, [4] xyxy, of this size away from all labels; the last try without such room."""
    room = np.maximum(np.array(image.size_wh) - size_wh, 1)
    none = np.zeros(len(image.labels.boxes), dtype=bool)
    for _ in range(_TRIES):
        corner = rng.random(2) * room
        box = np.concatenate((corner, corner + size_wh))
        overlaps = box_overlaps(box[None], image.labels.boxes, none)
        if overlaps.max(initial=0) < _MAX_OVERLAP:
            break
    return box


def _plant_missed(image: ComparedImage, place: int) -> float:
    box = image.labels.boxes[place]
    keep = np.arange(len(image.labels.boxes)) != place
    result = _compare(image, image.labels.boxes[keep], image.labels.labels[keep])
    overlaps = box_overlaps(image.found.boxes, box[None], np.zeros(1, dtype=bool))[:, 0]
    return float(result.missed[overlaps >= _FOUND_IOU].max(initial=0))


def _plant_unsupported(image: ComparedImage, place: int, rng: np.random.Generator) -> float:
    box = image.labels.boxes[place]
    boxes = np.concatenate((image.labels.boxes, invented(image, box[2:] - box[:2], rng)[None]))
    labels = np.append(image.labels.labels, image.labels.labels[place])
    return float(_compare(image, boxes, labels).unsupported[-1])


def _plant_class(
    image: ComparedImage, place: int, num_classes: int, rng: np.random.Generator
) -> float | None:
    if num_classes < 2:
        return None
    labels = image.labels.labels.copy()
    labels[place] = (labels[place] + rng.integers(1, num_classes)) % num_classes
    return float(_compare(image, image.labels.boxes, labels).wrong_class[place])


def _plant_shift(image: ComparedImage, place: int, rng: np.random.Generator) -> float:
    boxes = image.labels.boxes.copy()
    boxes[place] = shifted(boxes[place], rng)
    return float(_compare(image, boxes, image.labels.labels).loose_box[place])


def _compare(image: ComparedImage, boxes: np.ndarray, labels: np.ndarray) -> Evidence:
    return evidence(Boxes(boxes, labels, np.ones(len(boxes))), image.found, image.crowds)
