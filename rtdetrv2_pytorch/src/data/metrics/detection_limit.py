"""The number of detections per class and image that AP counts."""

from ...misc.text import counted
from ..annotation_arrays import Annotations

COCO_LIMIT = 100


def detection_limit(most_objects: int, most_detections: int) -> int:
    """Return how many detections of a class AP counts in an image, the best ones first.

    COCO counts 100, so the AP of data with more objects of a class could not reach 1. For such
    data, all detections count.

    Args:
        most_objects: the largest number of objects of one class in an image, without crowds.
        most_detections: the largest number of detections in an image.
    """
    return COCO_LIMIT if most_objects <= COCO_LIMIT else max(most_objects, most_detections)


def limit_of_split(annotations: Annotations, num_top_queries: int) -> int:
    """Return the limit for a detector that returns `num_top_queries` detections per image."""
    return detection_limit(annotations.most_objects(of_one_class=True), num_top_queries)


def limit_notes(annotations: Annotations, num_top_queries: int) -> list[str]:
    """Describe the limit for a split where it is not COCO's, in lines for a log.

    Args:
        annotations: of the split.
        num_top_queries: detections per image that the detector returns.
    """
    most = annotations.most_objects(of_one_class=True)
    if most <= COCO_LIMIT:
        return []
    limit = limit_of_split(annotations, num_top_queries)
    return [
        f"AP counts {counted(limit, 'detection')} per class and image, because an image has "
        f"{counted(most, 'object')} of a class; AP_coco counts {COCO_LIMIT}, as COCO does"
    ]


def missed_objects_warning(annotations: Annotations, num_top_queries: int) -> str | None:
    """Return a warning if an image has more objects than the detector returns detections.

    Args:
        annotations: of the split.
        num_top_queries: detections per image that the detector returns.
    """
    most = annotations.most_objects()
    if most <= num_top_queries:
        return None
    return (
        f"num_top_queries = {num_top_queries}, but an image to evaluate has "
        f"{counted(most, 'object')}: the others cannot be detected, which limits AP; increase "
        "num_top_queries and RTDETRTransformerv2.num_queries, or cut the images into tiles"
    )
