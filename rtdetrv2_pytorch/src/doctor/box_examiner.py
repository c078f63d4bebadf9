"""Examination of the boxes that the trainer uses, image by image."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from ..data.annotation_arrays import ImageRecord
from ..data.dataset import boxes_inside
from ..data.findings import Box, Finding, Illustration
from ..data.metrics.detection_limit import COCO_LIMIT
from ..misc.text import counted

_NOISE = 0.01  # pixels: rounding errors
_TINY = 4.0  # pixels at the training size: half a cell of the finest level


class BoxExaminer:
    """Examines the boxes of one split and counts used, modified and skipped boxes."""

    def __init__(
        self,
        split: str,
        class_names: Sequence[str],
        *,
        size_hw: tuple[int, int],
        num_queries: int,
        num_top_queries: int,
        ap_limit: int,
    ) -> None:
        self.split = split
        self.class_names = class_names  # in label order
        self.size_hw = size_hw  # (height, width) of the images in training
        self.num_queries = num_queries
        self.num_top_queries = num_top_queries
        self.ap_limit = ap_limit  # detections of a class and image that AP counts
        self.used = 0
        self.clipped = 0  # included in used
        self.skipped = 0
        self.lost_images = 0  # without any box inside the image
        self.objects: Counter[int] = Counter()  # used boxes by label

    def examine(
        self, record: ImageRecord, size_wh: tuple[int, int] | None, picture: Illustration | None
    ) -> Iterator[Finding]:
        """Count the boxes of an image and yield findings about them.

        Args:
            record: the image with its boxes.
            size_wh: (width, height) as the trainer reads it; None if it cannot use the image.
            picture: the file, if the report may show it.
        """
        if size_wh is None:
            self.skipped += len(record.labels)
            return
        boxes, has_area = boxes_inside(record.boxes_xyxy, size_wh)
        is_crowd = record.iscrowd != 0
        is_used = has_area & ~is_crowd
        is_clipped = is_used & (np.abs(boxes - record.boxes_xyxy).max(axis=1, initial=0) > _NOISE)
        self.used += int(is_used.sum())
        self.clipped += int(is_clipped.sum())
        self.skipped += int((~is_used).sum())
        self.objects.update(record.labels[is_used].tolist())

        sides = (boxes[:, 2:] - boxes[:, :2]) * self.size_hw[::-1] / size_wh
        shortest = sides.min(axis=1, initial=math.inf)
        repeated = _repeated(record)
        for kind, which in (
            ("box_out_of_bounds", is_clipped),
            ("box_outside", ~has_area & ~is_crowd),
            ("box_crowd", is_crowd),
            ("box_duplicate", repeated & is_used),
            ("object_vanishing", is_used & (shortest < 1)),
            ("object_tiny", is_used & (shortest >= 1) & (shortest < _TINY)),
        ):
            if which.any():
                yield self._finding(kind, record, which, picture)
        yield from self._many_objects(record, is_used, picture)
        if len(boxes) and not has_area.any():
            self.lost_images += 1
            detail = counted(len(boxes), "object")
            yield Finding(
                "objects_unusable", record.file_name, detail, split=self.split, picture=picture
            )
        elif not is_used.any():
            yield Finding("image_without_objects", record.file_name, split=self.split)

    def _many_objects(
        self, record: ImageRecord, is_used: np.ndarray, picture: Illustration | None
    ) -> Iterator[Finding]:
        """Yield findings about the number of objects, for the model and for its evaluation."""
        count = int(is_used.sum())
        if count > min(self.num_queries, self.num_top_queries):
            detail = f"{counted(count, 'object')}, {counted(self.num_queries, 'query')}"
            if self.num_top_queries < self.num_queries:
                detail += f", num_top_queries {self.num_top_queries}"
            yield Finding(
                "too_many_objects", record.file_name, detail, split=self.split, picture=picture
            )
        if self.split == "val" and count > COCO_LIMIT:
            counts = np.bincount(record.labels[is_used])
            if counts.max() > COCO_LIMIT:
                name, limit = self.class_names[int(counts.argmax())], self.ap_limit
                detail = f"{counts.max()} of {name!r}: AP counts {counted(limit, 'detection')}"
                yield Finding(
                    "above_coco_limit", record.file_name, detail, split=self.split, picture=picture
                )

    def _finding(
        self, kind: str, record: ImageRecord, which: np.ndarray, picture: Illustration | None
    ) -> Finding:
        boxes: list[Box] = [tuple(box) for box in record.boxes_xyxy[which].tolist()]
        title = self.class_names[record.labels[which][0]]
        corners = ", ".join(f"{value:.10g}" for value in boxes[0])
        more = f" and {len(boxes) - 1} more" if len(boxes) > 1 else ""
        return Finding(
            kind,
            record.file_name,
            f"{title!r} at ({corners}){more}",
            split=self.split,
            picture=picture,
            boxes=boxes,
            count=len(boxes),
        )


def _repeated(record: ImageRecord) -> np.ndarray:
    """Return which boxes repeat an earlier one of the same class: [N] bool."""
    rows = np.column_stack((record.boxes_xyxy, record.labels))
    _, first = np.unique(rows, axis=0, return_index=True)
    repeated = np.ones(len(rows), dtype=bool)
    repeated[first] = False
    return repeated
