"""Boxes: those that the trainer skips while it reads, and those that it uses."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.annotations import ImageRecord
from ..data.categories import normalise_id
from ..data.coco_dataset import AnnotationEntry
from ..data.dataset import SkippedItems, SkipReason, boxes_inside
from ..data.findings import Box, Finding, Illustration, finding

_NOISE = 0.01  # pixels: what rounding leaves
_TINY = 4.0  # pixels at the training size: half a cell of the finest level
_MOST_LETTERS = 80  # of a value from the file
_REASONS = {
    SkipReason.NO_NAME: "image_entry_malformed",
    SkipReason.NO_OBJECT: "annotation_malformed",
    SkipReason.NO_IMAGE: "annotation_without_image",
    SkipReason.UNKNOWN_CLASS: "unknown_class",
    SkipReason.OUTSIDE: "box_outside",
}
_OF_IMAGES = (SkipReason.NO_NAME, SkipReason.MISSING)


class NotedItems(SkippedItems):
    """Keeps what was skipped as it is, beside its description."""

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self.items: list[tuple[str, Any]] = []

    def add(self, reason: str, what: Any) -> None:
        """Note one skipped thing."""
        super().add(reason, what)
        self.items.append((reason, what))

    def num_annotations(self) -> int:
        """Skipped entries of `annotations`."""
        return sum(1 for reason, _ in self.items if reason not in _OF_IMAGES)


def skipped_entries(split: str, noted: NotedItems, names: Mapping[Any, str]) -> Iterator[Finding]:
    """Entries that the trainer left out while it read the file; not missing images.

    Args:
        split: name of the split.
        noted: what was left out.
        names: file names by image id.
    """
    for reason, what in noted.items:
        if reason == SkipReason.MISSING:
            continue
        if not isinstance(what, AnnotationEntry):
            yield finding(_REASONS[SkipReason(reason)], _short(what), split=split)
            continue
        where = names.get(what.image_id, f"image {what.image_id}")
        detail = f"annotation {_short(what.entry.get('id'))}"
        if reason == SkipReason.UNKNOWN_CLASS:
            kind, detail = "unknown_class", f"{detail}: {_short(what.entry.get('category_id'))}"
        elif reason in _REASONS:
            kind = _REASONS[SkipReason(reason)]
        else:
            bbox = what.entry.get("bbox")
            kind, detail = _kind_of_box(bbox), f"{detail}: {_short(bbox)}"
        yield finding(kind, where, detail, split=split)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]}..."


def _kind_of_box(bbox: Any) -> str:
    """Why a box is none."""
    if bbox is None or (isinstance(bbox, list) and None in bbox):
        return "box_null"
    if not isinstance(bbox, list) or len(bbox) != 4:
        return "box_malformed"
    try:
        values = [float(value) for value in bbox]
    except OverflowError:
        return "box_not_finite"
    except (TypeError, ValueError):
        return "box_malformed"
    if not all(map(math.isfinite, values)):
        return "box_not_finite"
    return "box_inverted" if min(values[2:]) < 0 else "box_zero_area"


def written_as_text(
    split: str, content: Mapping[str, Any], noted: NotedItems, names: Mapping[Any, str]
) -> Iterator[Finding]:
    """Boxes with numbers that are text, and are used all the same."""
    skipped = {id(what.entry) for _, what in noted.items if isinstance(what, AnnotationEntry)}
    for entry in content["annotations"]:
        bbox = entry.get("bbox") if isinstance(entry, dict) else None
        if id(entry) in skipped or not isinstance(bbox, list):
            continue
        if any(isinstance(value, str) for value in bbox):
            where = names.get(normalise_id(entry.get("image_id")), "")
            yield finding("box_as_text", where, _short(bbox), split=split)


@dataclass
class BoxCounts:
    """What becomes of the boxes of a split."""

    used: int = 0
    clipped: int = 0  # among those that are used
    skipped: int = 0


class BoxExaminer:
    """Looks at the boxes of one split, image by image.

    Args:
        split: name of the split.
        class_names: in label order.
        size_hw: (height, width) of the images in training.
        num_queries: of the model.
    """

    def __init__(
        self,
        split: str,
        class_names: Sequence[str],
        *,
        size_hw: tuple[int, int],
        num_queries: int,
    ) -> None:
        self.split = split
        self.class_names = class_names
        self.size_hw = size_hw
        self.num_queries = num_queries
        self.counts = BoxCounts()
        self.objects: Counter[int] = Counter()  # used boxes by label

    def examine(
        self, record: ImageRecord, size_wh: tuple[int, int] | None, picture: Illustration | None
    ) -> Iterator[Finding]:
        """Count the boxes of an image and say what is odd about them.

        Args:
            record: the image with its boxes.
            size_wh: (width, height) as the trainer sees it; None if it cannot use the image.
            picture: the file, if it may be shown.
        """
        if size_wh is None:
            self.counts.skipped += len(record.labels)
            return
        boxes, has_area = boxes_inside(record.boxes_xyxy, size_wh)
        is_crowd = record.iscrowd != 0
        is_used = has_area & ~is_crowd
        is_clipped = is_used & (np.abs(boxes - record.boxes_xyxy).max(axis=1, initial=0) > _NOISE)
        self.counts.used += int(is_used.sum())
        self.counts.clipped += int(is_clipped.sum())
        self.counts.skipped += int((~is_used).sum())
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
        if is_used.sum() > self.num_queries:
            detail = f"{is_used.sum()} objects, {self.num_queries} queries"
            yield finding(
                "too_many_objects", record.file_name, detail, split=self.split, picture=picture
            )
        if not is_used.any():
            yield finding("image_without_objects", record.file_name, split=self.split)

    def _finding(
        self, kind: str, record: ImageRecord, which: np.ndarray, picture: Illustration | None
    ) -> Finding:
        boxes: list[Box] = [tuple(box) for box in record.boxes_xyxy[which].tolist()]
        title = self.class_names[record.labels[which][0]]
        corners = ", ".join(f"{value:.10g}" for value in boxes[0])
        more = f" and {len(boxes) - 1} more" if len(boxes) > 1 else ""
        return finding(
            kind,
            record.file_name,
            f"{title!r} at ({corners}){more}",
            split=self.split,
            picture=picture,
            boxes=boxes,
            count=len(boxes),
        )


def _repeated(record: ImageRecord) -> np.ndarray:
    """[N] bool: boxes that are there already, with the same class."""
    rows = np.column_stack((record.boxes_xyxy, record.labels))
    _, first = np.unique(rows, axis=0, return_index=True)
    repeated = np.ones(len(rows), dtype=bool)
    repeated[first] = False
    return repeated
