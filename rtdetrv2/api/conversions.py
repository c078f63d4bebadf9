"""Detections in the formats of other packages, which are imported when they are used."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rtdetrv2_pytorch.src.misc.coco_categories import COCO_CATEGORIES
from rtdetrv2_pytorch.src.misc.errors import ConfigError, extra

if TYPE_CHECKING:
    from .detections import Detections

CONFIDENCE = "confidence"  # name of the tag with the score


def to_supervision(detections: "Detections") -> Any:
    """See `Detections.to_supervision`."""
    with extra("supervision"):
        import supervision
    return supervision.Detections(
        xyxy=detections.boxes.copy(),
        confidence=detections.scores.copy(),
        class_id=detections.labels.copy(),
        data={"class_name": np.array(detections.names, dtype=np.str_)},
    )


def category_ids(class_names: tuple[str, ...]) -> dict[str, int]:
    """Return the ids of COCO for its 80 classes, otherwise 1, 2, ... in label order."""
    if class_names == tuple(COCO_CATEGORIES.values()):
        return {name: i for i, name in COCO_CATEGORIES.items()}
    return {name: i for i, name in enumerate(class_names, 1)}


def to_coco(
    detections: "Detections", image_id: int, ids: Mapping[str, int] | None
) -> list[dict[str, Any]]:
    """See `Detections.to_coco`."""
    if ids is None:
        ids = category_ids(detections.class_names)
    missing = sorted(set(detections.names) - set(ids))
    if missing:
        raise ConfigError(f"category_ids: no id of the class {missing[0]!r}; add it")
    return [
        {
            "image_id": image_id,
            "category_id": ids[found.name],
            "bbox": _xywh(found.box),
            "score": round(found.score, 5),
        }
        for found in detections
    ]


def _xywh(box: tuple[float, float, float, float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)]


def covered_pixels(
    box: tuple[float, float, float, float], size_hw: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Return the first and last column and row of a box, as Supervisely stores rectangles.

    Returns:
        left, top, right, bottom; the last column and row belong to the box.
    """
    height, width = size_hw
    x1, y1, x2, y2 = (math.floor(edge + 0.5) for edge in box)
    left, top = min(x1, width - 1), min(y1, height - 1)
    return left, top, max(x2 - 1, left), max(y2 - 1, top)


def to_supervisely(detections: "Detections", meta: Any) -> Any:
    """See `Detections.to_supervisely`."""
    with extra("supervisely"):
        import supervisely as sly
    if not isinstance(meta, sly.ProjectMeta):
        meta = sly.ProjectMeta.from_json(meta)
    classes = {name: meta.get_obj_class(name) for name in set(detections.names)}
    missing = sorted(name for name, found in classes.items() if found is None)
    if missing:
        raise ConfigError(
            f"the project does not have the class{'es' if len(missing) > 1 else ''} "
            f"{', '.join(map(repr, missing))}; add them to the project, or leave them out with "
            "detections.filter(classes=...)"
        )
    for name, found in classes.items():
        if found.geometry_type not in (sly.Rectangle, sly.AnyGeometry):
            raise ConfigError(
                f"the class {name!r} of the project has the shape "
                f"{found.geometry_type.geometry_name()}; detections need rectangle or any"
            )
    tag = meta.get_tag_meta(CONFIDENCE)
    has_score = tag is not None and tag.value_type == sly.TagValueType.ANY_NUMBER
    labels = []
    for found in detections:
        left, top, right, bottom = covered_pixels(found.box, detections.size_hw)
        tags = [sly.Tag(tag, round(found.score, 4))] if has_score else []
        rectangle = sly.Rectangle(top=top, left=left, bottom=bottom, right=right)
        labels.append(sly.Label(rectangle, classes[found.name], sly.TagCollection(tags)))
    return sly.Annotation(img_size=detections.size_hw, labels=labels)
