"""Spoil labels of a COCO file in four ways, and score a list of suspicions against them."""

from collections.abc import Mapping, Sequence, Set
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rtdetrv2.analysis.radar.evidence import Boxes
from rtdetrv2.analysis.radar.planting import ComparedImage, invented, shifted
from rtdetrv2.analysis.radar.suspicions import Suspicion
from rtdetrv2_pytorch.src.data.metrics.operating_point import box_overlaps

KINDS = ("missed", "unsupported", "wrong_class", "loose_box")
_FOUND_IOU = 0.5


@dataclass(frozen=True)
class Spoiled:
    """A spoiled label: kind, image id, [4] xyxy of the label before (missed) or after."""

    kind: str
    image_id: int
    box: np.ndarray
    annotation_id: int


def spoil(
    content: Mapping[str, Any], fraction: float, *, seed: int
) -> tuple[dict[str, Any], list[Spoiled]]:
    """Spoil a fraction of the boxes, a quarter of them in each way.

    Args:
        content: of a COCO file, with image sizes.
        fraction: of the boxes.
        seed: of the choice.

    Returns:
        The spoiled content, and what was spoiled.
    """
    spoiled, rng = deepcopy(dict(content)), np.random.default_rng(seed)
    annotations = spoiled["annotations"]
    usable = [i for i, each in enumerate(annotations) if not each.get("iscrowd")]
    chosen = rng.permutation(usable)[: round(fraction * len(usable))]
    classes = [each["id"] for each in spoiled["categories"]]
    kinds = [kind for kind in KINDS if kind != "wrong_class" or len(classes) > 1]
    sizes = {each["id"]: (each["width"], each["height"]) for each in spoiled["images"]}
    next_id = max(each["id"] for each in annotations) + 1
    removed, made = set(), []
    for number, place in enumerate(chosen):
        each, kind = annotations[place], kinds[number % len(kinds)]
        box, id_ = _corners(each["bbox"]), each["id"]
        if kind == "missed":
            removed.add(int(place))
        elif kind == "wrong_class":
            others = [c for c in classes if c != each["category_id"]]
            each["category_id"] = others[rng.integers(len(others))]
        elif kind == "loose_box":
            width, height = sizes[each["image_id"]]
            box = np.clip(shifted(box, rng), 0, [width, height, width, height])
            each["bbox"] = _xywh(box)
        else:
            image = _image(annotations, each["image_id"], sizes[each["image_id"]])
            box, id_ = invented(image, box[2:] - box[:2], rng), next_id
            new = {**each, "id": id_, "bbox": _xywh(box)}
            annotations.append({k: v for k, v in new.items() if k != "segmentation"})
            next_id += 1
        made.append(Spoiled(kind, each["image_id"], box, id_))
    spoiled["annotations"] = [a for i, a in enumerate(annotations) if i not in removed]
    return spoiled, made


def hits(suspicions: Sequence[Suspicion], made: Sequence[Spoiled]) -> list[int]:
    """Return the index of the spoiled label that each suspicion shows, or -1.

    A suspicion shows a spoiled label if its label, or its detection for a removed label, overlaps
    it at IoU 0.5. The kind may differ: the picture shows the error anyway.
    """
    result = []
    for each in suspicions:
        boxes = [box.box for box in (each.label, each.detection) if box is not None]
        result.append(
            next(
                (
                    i
                    for i, spoiled in enumerate(made)
                    if spoiled.image_id == each.image_id
                    and (each.label is None) == (spoiled.kind == "missed")
                    and _overlap(boxes[0], spoiled.box) >= _FOUND_IOU
                ),
                -1,
            )
        )
    return result


def averaged(epochs: Sequence[Sequence[Suspicion]]) -> list[Suspicion]:
    """Return all suspicions by the mean of their probabilities over the epochs of a training.

    Suspicions of different epochs are the same if they show the same label, or if both show a
    missing label and their detections overlap at IoU 0.5.

    Args:
        epochs: suspicions of each epoch; the first ones are described.
    """
    shown: dict[int, list[Suspicion]] = {}
    total: dict[int, float] = {}
    for suspicions in epochs:
        for each in suspicions:
            same = (other for other in shown.get(each.image_id, ()) if _same_place(each, other))
            first = next(same, None)
            if first is None:
                shown.setdefault(each.image_id, []).append(first := each)
            total[id(first)] = total.get(id(first), 0.0) + each.probability
    found = [each for suspicions in shown.values() for each in suspicions]
    means = [replace(each, probability=total[id(each)] / len(epochs)) for each in found]
    return sorted(means, key=lambda each: (-each.probability, -each.strength))


def _same_place(one: Suspicion, other: Suspicion) -> bool:
    if one.label is not None or other.label is not None:
        return one.label == other.label
    assert one.detection is not None and other.detection is not None
    return _overlap(one.detection.box, np.array(other.detection.box)) >= _FOUND_IOU


def repaired(
    content: Mapping[str, Any],
    spoiled: Mapping[str, Any],
    made: Sequence[Spoiled],
    seen: Set[int],
) -> dict[str, Any]:
    """Return the spoiled content with the labels of `seen`, indices of `made`, as they were."""
    ids = {made[i].annotation_id for i in seen}
    before = {each["id"]: each for each in content["annotations"]}
    kept = [each for each in spoiled["annotations"] if each["id"] not in ids]
    return {**spoiled, "annotations": kept + [before[id_] for id_ in sorted(ids) if id_ in before]}


def precision_at(found: Sequence[int], count: int) -> float:
    """Return the fraction of errors among the first suspicions."""
    first = found[:count]
    return sum(i >= 0 for i in first) / max(len(first), 1)


def recall_at(found: Sequence[int], num_spoiled: int, num_clean: int, false_rate: float) -> float:
    """Return the fraction of spoiled labels that are found before too many false alarms.

    Args:
        found: of `hits`.
        num_spoiled: number of spoiled labels.
        num_clean: number of other labels.
        false_rate: false alarms that are allowed, as a fraction of the other labels.
    """
    allowed, seen = false_rate * num_clean, set()
    for index in found:
        if index < 0:
            allowed -= 1
            if allowed < 0:
                break
        else:
            seen.add(index)
    return len(seen) / max(num_spoiled, 1)


def _image(
    annotations: Sequence[Mapping[str, Any]], image_id: int, size_wh: tuple[int, int]
) -> ComparedImage:
    boxes = [_corners(each["bbox"]) for each in annotations if each["image_id"] == image_id]
    labels = Boxes(np.stack(boxes), np.zeros(len(boxes), np.int64), np.ones(len(boxes)))
    return ComparedImage(labels, labels, np.empty((0, 4)), size_wh)


def _overlap(box: Sequence[float], other: np.ndarray) -> float:
    return float(box_overlaps(np.array([box]), other[None], np.zeros(1, dtype=bool))[0, 0])


def _corners(bbox: Sequence[float]) -> np.ndarray:
    x, y, width, height = map(float, bbox)
    return np.array([x, y, x + width, y + height])


def _xywh(box: np.ndarray) -> list[float]:
    x1, y1, x2, y2 = (float(v) for v in box)
    return [x1, y1, x2 - x1, y2 - y1]
