"""A ranked list of probable annotation errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rtdetrv2_pytorch.src.data.annotation_arrays import Annotations, ImageRecord
from rtdetrv2_pytorch.src.data.metrics.evaluator import DetectionTable

from .evidence import MIN_SCORE, Boxes, Evidence, evidence, objects_of, own_scores
from .planting import ComparedImage, Posterior, fit, planted_values

KINDS = {
    "missed": "missing label",
    "unsupported": "label without an object",
    "wrong_class": "wrong class",
    "loose_box": "inaccurate box",
}
MIN_PROBABILITY = 0.05  # of a listed suspicion
_FEW = 5  # labels of a class; below it, the reference score is that of all classes
_LOWEST_REFERENCE = 0.1


@dataclass(frozen=True)
class NamedBox:
    """A label or a detection: class name, xyxy in pixels, score (1 for labels)."""

    class_name: str
    box: tuple[float, float, float, float]
    score: float


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """A probable annotation error.

    Attributes:
        kind: key of `KINDS`.
        probability: of an error, from 0 to 1.
        strength: ranks suspicions with the same probability: the score of the detection, or the
            evidence against an object.
        split: "train" or "val".
        file_name: of the image.
        image_id: of the image in its annotation file.
        label: the label in question; None if it is missing.
        detection: what the network detects there; None if nothing.
    """

    kind: str
    probability: float
    strength: float
    split: str
    file_name: str
    image_id: int
    label: NamedBox | None
    detection: NamedBox | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "kind": self.kind,
            "probability": round(self.probability, 4),
            "split": self.split,
            "file_name": self.file_name,
            "image_id": self.image_id,
            "label": _plain(self.label),
            "detection": _plain(self.detection),
        }


def find_suspicions(
    annotations: Annotations, found: DetectionTable, *, split: str, seed: int = 0
) -> tuple[list[Suspicion], dict[str, float]]:
    """List probable annotation errors of a split, the most probable ones first.

    A label is listed once, with its most probable error.

    Args:
        annotations: of the split.
        found: detections by networks that were not trained on these labels.
        split: "train" or "val".
        seed: of the planted errors.

    Returns:
        The list, and the estimated number of errors by kind as a fraction of the labels.
    """
    places = {int(id_): place for place, id_ in enumerate(annotations.image_ids)}
    parts = [(annotations[places[id_]], part) for id_, part in found.slices().items()]
    raw = [_detections(found, part) for _, part in parts]
    labels = [objects_of(record) for record, _ in parts]
    reference = _reference(labels, raw, len(annotations.categories))
    images = []
    for (record, _), own, boxes in zip(parts, labels, raw, strict=True):
        relative = Boxes(boxes.boxes, boxes.labels, boxes.scores / reference[boxes.labels])
        images.append(ComparedImage(own, relative, _crowds(record), _size(record)))
    results = [evidence(image.labels, image.found, image.crowds) for image in images]
    posteriors = _posteriors(images, results, len(annotations.categories), seed)
    names = annotations.categories.names
    listed = [
        each
        for (record, _), own, boxes, result in zip(parts, labels, raw, results, strict=True)
        for each in _of_image(record, split, own, boxes, result, posteriors, names)
    ]
    listed.sort(key=lambda each: (-each.probability, -each.strength))
    return listed, {kind: posterior.prior for kind, posterior in posteriors.items()}


def _posteriors(
    images: Sequence[ComparedImage], results: Sequence[Evidence], num_classes: int, seed: int
) -> dict[str, Posterior]:
    planted = planted_values(images, num_classes, seed=seed)
    total = max(sum(len(image.labels.boxes) for image in images), 1)
    fitted = {}
    for kind in KINDS:
        values = np.concatenate([np.empty(0), *(getattr(result, kind) for result in results)])
        fitted[kind] = fit(values, planted[kind], total=total)
    return fitted


def _of_image(
    record: ImageRecord,
    split: str,
    labels: Boxes,
    found: Boxes,
    result: Evidence,
    posteriors: dict[str, Posterior],
    names: Sequence[str],
) -> list[Suspicion]:
    def listed(kind: str, probability: float, label: int, detection: int) -> Suspicion:
        strength = found.scores[detection] if detection >= 0 else getattr(result, kind)[label]
        return Suspicion(
            kind=kind,
            probability=float(probability),
            strength=float(strength),
            split=split,
            file_name=record.file_name,
            image_id=record.image_id,
            label=_named(labels, label, names),
            detection=_named(found, detection, names),
        )

    missed = posteriors["missed"](result.missed)
    suspicions = [
        listed("missed", missed[i], -1, int(i)) for i in np.flatnonzero(missed >= MIN_PROBABILITY)
    ]
    kinds = ("unsupported", "wrong_class", "loose_box")
    values = np.stack([posteriors[kind](getattr(result, kind)) for kind in kinds])
    nothing = np.full(len(labels.boxes), -1)
    behind = np.stack([nothing, result.rival, result.partner])
    for place in range(len(labels.boxes)):
        which = int(values[:, place].argmax())
        if values[which, place] >= MIN_PROBABILITY:
            suspicions.append(
                listed(kinds[which], values[which, place], place, int(behind[which, place]))
            )
    return suspicions


def _reference(labels: Sequence[Boxes], found: Sequence[Boxes], num_classes: int) -> np.ndarray:
    """Return the usual score of a correct detection of each class: [K], above 0."""
    scores = [own_scores(own, boxes) for own, boxes in zip(labels, found, strict=True)]
    values = np.concatenate([np.empty(0), *scores])
    classes = np.concatenate([np.empty(0, np.int64), *(own.labels for own in labels)])
    overall = float(np.median(values)) if len(values) else 1.0
    medians = [
        float(np.median(values[classes == k])) if (classes == k).sum() >= _FEW else overall
        for k in range(num_classes)
    ]
    return np.maximum(medians, _LOWEST_REFERENCE)


def _detections(found: DetectionTable, part: slice) -> Boxes:
    chosen = found.scores[part] >= MIN_SCORE
    return Boxes(
        found.boxes[part][chosen].astype(np.float64),
        found.labels[part][chosen],
        found.scores[part][chosen].astype(np.float64),
    )


def _crowds(record: ImageRecord) -> np.ndarray:
    crowds: np.ndarray = record.boxes_xyxy[record.iscrowd != 0]
    return crowds


def _size(record: ImageRecord) -> tuple[float, float]:
    """Return the declared size, or else what its labels need."""
    if record.size_wh is not None:
        return record.size_wh
    width, height = record.boxes_xyxy[:, 2:].max(axis=0, initial=1)
    return float(width), float(height)


def _named(boxes: Boxes, place: int, names: Sequence[str]) -> NamedBox | None:
    if place < 0:
        return None
    x1, y1, x2, y2 = (round(float(v), 2) for v in boxes.boxes[place])
    return NamedBox(names[boxes.labels[place]], (x1, y1, x2, y2), float(boxes.scores[place]))


def _plain(box: NamedBox | None) -> dict[str, Any] | None:
    if box is None:
        return None
    return {"class": box.class_name, "box_xyxy": list(box.box), "score": round(box.score, 4)}
