"""The AP that an export in reduced precision may lose, in total and of each class."""

from collections.abc import Mapping, Sequence

from ..data.metrics.evaluator import CocoEvaluator, Evaluation
from ..structures import DetectionTensors
from .comparison_images import ComparisonImages

MAX_AP_LOSS = 5e-3
MAX_CLASS_AP_LOSS, MIN_CLASS_BOXES = 0.02, 20  # of each class with as many boxes in the images

# Class with at least `MIN_CLASS_BOXES` boxes -> its AP of the reference and of the export.
ClassAP = Mapping[str, tuple[float, float]]


def ap_losses(before: float, after: float, classes: ClassAP) -> list[str]:
    """Return a sentence for each AP, in total and of classes, that lost too much."""
    losses = []
    if before - after > MAX_AP_LOSS:
        losses.append(f"AP {after:.4f} instead of {before:.4f} (limit: a loss of {MAX_AP_LOSS})")
    return losses + [
        f"AP {mine:.4f} instead of {reference:.4f} for {name} (limit: a loss of "
        f"{MAX_CLASS_AP_LOSS})"
        for name, (reference, mine) in classes.items()
        if reference - mine > MAX_CLASS_AP_LOSS
    ]


def class_ap(before: Evaluation, after: Evaluation) -> dict[str, tuple[float, float]]:
    """Pair the AP of classes; see `ClassAP`."""
    return {
        one.name: (one.ap, other.ap)
        for one, other in zip(before.classes, after.classes, strict=True)
        if one.num_boxes >= MIN_CLASS_BOXES
    }


def evaluation(
    found: Sequence[DetectionTensors], comparison: ComparisonImages
) -> Evaluation | None:
    """Evaluate detections on the annotated images; None without annotations."""
    if comparison.annotations is None:
        return None
    evaluator = CocoEvaluator(annotations=comparison.annotations, iou_types=["bbox"])
    # Images without annotations come last and have no id.
    evaluator.update(dict(zip(comparison.image_ids, found, strict=False)))
    evaluator.accumulate()
    evaluator.summarize()
    return evaluator.result()
