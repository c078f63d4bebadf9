"""Recommendations derived from the metrics of a run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.metrics.evaluator import Evaluation
from ..misc.text import counted
from .run_log import RunLog

_FEW_IMAGES = 50
_FEW_BOXES = 100  # training boxes of a class
_OVERFIT = 1.05  # ratio of the last to the lowest validation loss
_CONFUSED_FRACTION = 0.1  # of the boxes of a class
_MIN_CONFUSED_BOXES = 5
_MAX_NAMED = 3  # classes in one recommendation


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Metrics of a run; None where not measured."""

    log: RunLog
    evaluation: Evaluation | None = None
    matrix: np.ndarray | None = None  # see `confusion_matrix`
    train_boxes: Sequence[int] = ()  # per class
    num_images: int = 0  # validation images
    num_background: int = 0  # validation images without objects
    num_background_wrong: int = 0  # background images with a detection
    most_objects: int = 0  # in a validation image
    most_detections: int = 0  # in a validation image
    calibration_error: float = float("nan")


def advice(facts: Facts) -> list[str]:
    """Return recommendations, the most useful first."""
    return [
        *_detections_advice(facts),
        *_length_advice(facts.log),
        *_class_advice(facts),
        *_confusion_advice(facts),
        *_size_advice(facts.evaluation),
        *_background_advice(facts),
        *_speed_advice(facts.log),
        *_calibration_advice(facts),
    ]


def _detections_advice(facts: Facts) -> Iterator[str]:
    most = facts.most_detections
    if most and facts.most_objects > most:
        yield (
            f"An image has {counted(facts.most_objects, 'object')}, but the model returns "
            f"{counted(most, 'detection')}: the others cannot be found. Increase num_top_queries "
            "and num_queries, or cut the images into tiles."
        )


def _length_advice(log: RunLog) -> Iterator[str]:
    curve, losses = log.numbers("AP"), log.numbers("val_loss")
    if len(curve) < 4:
        return
    best_epoch, best = max(curve, key=lambda point: point[1])
    last_epoch, last = curve[-1]
    if best_epoch == last_epoch and best > 0:
        yield (
            f"AP was still rising: {best:.3f} in the last epoch, {curve[-2][1]:.3f} in the "
            "evaluation before. Train for more epochs (epoches)."
        )
        return
    lowest_epoch, lowest = min(losses, key=lambda point: point[1], default=(0, 0.0))
    is_early = best_epoch < 0.6 * last_epoch
    if is_early and losses and losses[-1][1] > _OVERFIT * lowest and last < best:
        yield (
            f"The model overfits: the validation loss was lowest in epoch {lowest_epoch + 1} "
            f"({lowest:.2f}) and ended at {losses[-1][1]:.2f}; AP was best in epoch "
            f"{best_epoch + 1}. Add training images, or stop earlier (patience)."
        )


def _class_advice(facts: Facts) -> Iterator[str]:
    if facts.evaluation is None or len(facts.evaluation.classes) < 2 or not len(facts.train_boxes):
        return
    known = [
        (c, n)
        for c, n in zip(facts.evaluation.classes, facts.train_boxes, strict=True)
        if np.isfinite(c.ap)
    ]
    middle = float(np.median([c.ap for c, _ in known])) if known else 0.0
    weak = sorted(
        ((c, n) for c, n in known if c.ap < 0.5 * middle and n < _FEW_BOXES),
        key=lambda pair: pair[0].ap,
    )
    if weak:
        names = "; ".join(
            f"{c.name}: AP {c.ap:.3f}, {counted(n, 'box')}" for c, n in weak[:_MAX_NAMED]
        )
        more = f" and {len(weak) - _MAX_NAMED} more" if len(weak) > _MAX_NAMED else ""
        yield f"Classes with few training boxes have low AP: {names}{more}. Label more of them."


def _confusion_advice(facts: Facts) -> Iterator[str]:
    if facts.matrix is None or facts.evaluation is None:
        return
    names = [c.name for c in facts.evaluation.classes]
    for true, found, count, total in confusions(facts.matrix)[:1]:
        if count >= _MIN_CONFUSED_BOXES and count >= _CONFUSED_FRACTION * total:
            yield (
                f"{names[true]} is confused with {names[found]} in {count} of "
                f"{counted(total, 'box')}. Check that both classes are labeled consistently."
            )


def confusions(matrix: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Return (class, predicted class, boxes, all boxes of the class), most boxes first."""
    between = matrix[:-1, :-1].copy()
    np.fill_diagonal(between, 0)
    totals = matrix[:-1].sum(axis=1)
    pairs = [(int(t), int(f), int(between[t, f]), int(totals[t])) for t, f in np.argwhere(between)]
    return sorted(pairs, key=lambda pair: -pair[2])


def _size_advice(evaluation: Evaluation | None) -> Iterator[str]:
    stats: Mapping[str, float] = evaluation.stats if evaluation is not None else {}
    small, large = stats.get("AP_small", -1.0), stats.get("AP_large", -1.0)
    if 0 <= small < 0.5 * large:
        yield (
            f"Small objects (below 32x32 pixels) have low AP: {small:.3f}, large objects "
            f"{large:.3f}. Increase the input size (eval_spatial_size)."
        )


def _background_advice(facts: Facts) -> Iterator[str]:
    wrong, total = facts.num_background_wrong, facts.num_background
    if total and wrong > 0.1 * total:
        yield (
            f"{wrong} of {counted(total, 'image')} without objects have false positives. Add "
            "images without objects to the training split."
        )


def _speed_advice(log: RunLog) -> Iterator[str]:
    verdict = str(log.epochs[-1].get("verdict") or "") if log.epochs else ""
    # A compute-bound run without AMP has a remedy; with AMP there is nothing to recommend.
    if verdict and ("compute bound" not in verdict or "use_amp" in verdict):
        yield f"Training speed is {verdict}."


def _calibration_advice(facts: Facts) -> Iterator[str]:
    if facts.calibration_error > 0.1:
        yield (
            f"The expected calibration error is {facts.calibration_error:.2f}: scores are not "
            "probabilities. Use the recommended thresholds."
        )
    if 0 < facts.num_images < _FEW_IMAGES:
        yield (
            f"With only {counted(facts.num_images, 'validation image')}, AP differences of a few "
            "hundredths are not significant."
        )
