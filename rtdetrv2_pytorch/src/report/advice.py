"""What the numbers of a run suggest to do next, each with the numbers that it rests on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.metrics.evaluator import Evaluation
from .run_log import RunLog

_FEW_IMAGES = 50
_FEW_BOXES = 100  # of a class, to train on
_NOTHING_TO_GAIN = "compute bound: the input"  # a verdict that asks for nothing
_OVERFIT = 1.05  # validation loss at the end, by its lowest
_CONFUSED = 0.1  # of the boxes of a class
_CONFUSED_BOXES = 5
_SHOWN = 3  # of classes that share an advice


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a run; None where it was not measured."""

    log: RunLog
    evaluation: Evaluation | None = None
    matrix: np.ndarray | None = None  # as `confusion_matrix` gives it
    train_boxes: Sequence[int] = ()  # of each class
    num_images: int = 0  # of the validation split
    num_background: int = 0  # of these, without a box
    num_background_wrong: int = 0  # of these, with a detection
    calibration_error: float = float("nan")


def advice(facts: Facts) -> list[str]:
    """Sentences, the most useful first; none where nothing stands out."""
    return [
        *_of_length(facts.log),
        *_of_classes(facts),
        *_of_confusions(facts),
        *_of_sizes(facts.evaluation),
        *_of_background(facts),
        *_of_speed(facts.log),
        *_of_certainty(facts),
    ]


def _of_length(log: RunLog) -> Iterator[str]:
    curve, losses = log.numbers("AP"), log.numbers("val_loss")
    if len(curve) < 4:
        return
    best_epoch, best = max(curve, key=lambda point: point[1])
    last_epoch, last = curve[-1]
    if best_epoch == last_epoch and best > 0:
        yield (
            f"AP was still rising: {best:.3f} in the last epoch, {curve[-2][1]:.3f} in the one "
            "before. Train for more epochs (epoches)."
        )
        return
    lowest_epoch, lowest = min(losses, key=lambda point: point[1], default=(0, 0.0))
    is_early = best_epoch < 0.6 * last_epoch
    if is_early and losses and losses[-1][1] > _OVERFIT * lowest and last < best:
        yield (
            f"The validation loss was lowest in epoch {lowest_epoch + 1} ({lowest:.2f}) and ends "
            f"at {losses[-1][1]:.2f}; AP was best in epoch {best_epoch + 1}. It learns the "
            "training images by heart: add images, or end earlier (patience)."
        )


def _of_classes(facts: Facts) -> Iterator[str]:
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
        names = "; ".join(f"{c.name}: AP {c.ap:.3f}, {n} boxes" for c, n in weak[:_SHOWN])
        more = f" and {len(weak) - _SHOWN} more" if len(weak) > _SHOWN else ""
        yield f"Classes that are rare in training are found badly: {names}{more}. Label more."


def _of_confusions(facts: Facts) -> Iterator[str]:
    if facts.matrix is None or facts.evaluation is None:
        return
    names = [c.name for c in facts.evaluation.classes]
    for true, found, count, total in confusions(facts.matrix)[:1]:
        if count >= _CONFUSED_BOXES and count >= _CONFUSED * total:
            yield (
                f"{names[true]} is taken for {names[found]} in {count} of {total} boxes. Look "
                "whether both are labelled consistently."
            )


def confusions(matrix: np.ndarray) -> list[tuple[int, int, int, int]]:
    """(true class, class found, boxes, boxes of the true class) of mix-ups, most boxes first."""
    between = matrix[:-1, :-1].copy()
    np.fill_diagonal(between, 0)
    totals = matrix[:-1].sum(axis=1)
    pairs = [(int(t), int(f), int(between[t, f]), int(totals[t])) for t, f in np.argwhere(between)]
    return sorted(pairs, key=lambda pair: -pair[2])


def _of_sizes(evaluation: Evaluation | None) -> Iterator[str]:
    stats: Mapping[str, float] = evaluation.stats if evaluation is not None else {}
    small, large = stats.get("AP_small", -1.0), stats.get("AP_large", -1.0)
    if 0 <= small < 0.5 * large:
        yield (
            f"Small objects (below 32x32 pixels) are found badly: AP {small:.3f}, large ones "
            f"{large:.3f}. A larger input size (eval_spatial_size) helps most."
        )


def _of_background(facts: Facts) -> Iterator[str]:
    wrong, total = facts.num_background_wrong, facts.num_background
    if total and wrong > 0.1 * total:
        yield (
            f"On {wrong} of {total} images without objects something is found. Add such images, "
            "without boxes, to the training split."
        )


def _of_speed(log: RunLog) -> Iterator[str]:
    verdict = str(log.epochs[-1].get("verdict") or "") if log.epochs else ""
    if verdict and not verdict.startswith(_NOTHING_TO_GAIN):
        yield f"Speed is {verdict}."


def _of_certainty(facts: Facts) -> Iterator[str]:
    if facts.calibration_error > 0.1:
        yield (
            f"Scores are off by {facts.calibration_error:.2f} on average: do not read them as "
            "probabilities, use the recommended thresholds."
        )
    if 0 < facts.num_images < _FEW_IMAGES:
        yield (
            f"{facts.num_images} validation images are few: differences of some hundredths of AP "
            "are chance."
        )
