"""All annotations of a split in a few flat arrays.

Worker processes share the arrays without copying them. Python objects per image or box would be
copied: their reference counts change on each access, and so do their memory pages.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .categories import MAX_EXACT, CategoryTable
from .findings import Box, Finding, Findings
from .readers.source import SourceImage, SourceObject

# File names may be invalid Unicode, both on disk and in JSON.
_ANY_NAME = ("utf-8", "surrogatepass")
_MAX_SIDE = 2**31 - 1  # of a declared size; larger than any image, and fits into the array


@dataclass(frozen=True)
class ImageRecord:
    """Annotations of one image."""

    file_name: str
    image_id: int
    size_wh: tuple[int, int] | None  # as declared
    boxes_xyxy: np.ndarray  # [N, 4] float64 pixels, as annotated: may leave the image
    labels: np.ndarray  # [N] int64
    area: np.ndarray  # [N] float64
    iscrowd: np.ndarray  # [N] int64


class Annotations:
    """Images and boxes of one split; labels follow the order of `categories`."""

    def __init__(self, records: Sequence[ImageRecord], categories: CategoryTable) -> None:
        self.categories = categories
        names = [r.file_name.encode(*_ANY_NAME) for r in records]
        self._names = np.frombuffer(b"".join(names), dtype=np.uint8)
        self._name_ends = np.cumsum([len(n) for n in names], dtype=np.int64)
        self._box_ends = np.cumsum([len(r.labels) for r in records], dtype=np.int64)
        self.image_ids = np.array([r.image_id for r in records], dtype=np.int64)
        # (width, height) as declared, or zeros.
        sizes = [[min(side, _MAX_SIDE) for side in r.size_wh or (0, 0)] for r in records]
        self.sizes_wh = np.array(sizes, np.int32).reshape(-1, 2)
        self.boxes_xyxy = _join([r.boxes_xyxy for r in records], np.float64, (0, 4))
        self.labels = _join([r.labels for r in records], np.int64, (0,))
        self.area = _join([r.area for r in records], np.float64, (0,))
        self.iscrowd = _join([r.iscrowd for r in records], np.int64, (0,))

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> ImageRecord:
        name_start = self._name_ends[index - 1] if index else 0
        start, end = (self._box_ends[index - 1] if index else 0), self._box_ends[index]
        width, height = (int(v) for v in self.sizes_wh[index])
        return ImageRecord(
            file_name=self._names[name_start : self._name_ends[index]].tobytes().decode(*_ANY_NAME),
            image_id=int(self.image_ids[index]),
            size_wh=(width, height) if width and height else None,
            boxes_xyxy=self.boxes_xyxy[start:end],
            labels=self.labels[start:end],
            area=self.area[start:end],
            iscrowd=self.iscrowd[start:end],
        )

    def boxes_per_image(self) -> np.ndarray:
        """Return the number of boxes per image: [images]."""
        return np.diff(self._box_ends, prepend=0)

    def images_by_class(self) -> list[tuple[int, np.ndarray]]:
        """Return each label with objects, and the images with objects of it, without crowds.

        Returns:
            (label, [images] int32) by label.
        """
        owners = np.repeat(np.arange(len(self)), self.boxes_per_image())
        pairs = np.unique((self.labels * len(self) + owners)[self.iscrowd == 0])
        if not len(pairs):
            return []
        labels, starts = np.unique(pairs // len(self), return_index=True)
        images = np.split((pairs % len(self)).astype(np.int32), starts[1:])
        return list(zip(labels.tolist(), images, strict=True))

    def most_objects(self, *, of_one_class: bool = False) -> int:
        """Return the largest number of objects in an image, without crowds.

        Args:
            of_one_class: count the objects of each class separately.
        """
        owners = np.repeat(np.arange(len(self)), self.boxes_per_image())
        labels = self.labels if of_one_class else np.zeros_like(self.labels)
        pairs = (owners * len(self.categories) + labels)[self.iscrowd == 0]
        return int(np.unique(pairs, return_counts=True)[1].max(initial=0))

    @property
    def evaluation_image_ids(self) -> np.ndarray:
        """Ids for COCO metrics: those of the file if float64 can hold them, else 0, 1, ..."""
        is_exact = np.abs(self.image_ids).max(initial=0) <= MAX_EXACT
        return self.image_ids if is_exact else np.arange(len(self.image_ids))

    def to_coco(self) -> dict[str, Any]:
        """Return the ground truth of the COCO metrics, as a COCO dict."""
        ids = self.categories.evaluation_ids
        image_ids = self.evaluation_image_ids
        owners = np.repeat(image_ids, self.boxes_per_image())
        sizes = self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2]
        boxes = np.concatenate((self.boxes_xyxy[:, :2], sizes), axis=1)
        columns = zip(
            owners.tolist(),
            self.labels.tolist(),
            boxes.tolist(),
            self.area.tolist(),
            self.iscrowd.tolist(),
            strict=True,
        )
        return {
            "info": {},
            "images": [
                {"id": i, "width": w, "height": h}
                for i, (w, h) in zip(image_ids.tolist(), self.sizes_wh.tolist(), strict=True)
            ],
            "categories": [
                {"id": i, "name": name} for i, name in zip(ids, self.categories.names, strict=True)
            ],
            "annotations": [
                {
                    "id": number,
                    "image_id": image_id,
                    "category_id": ids[label],
                    "bbox": box,
                    "area": area,
                    "iscrowd": crowd,
                }
                for number, (image_id, label, box, area, crowd) in enumerate(columns, start=1)
            ],
        }


def make_records(
    images: Iterable[SourceImage],
    categories: CategoryTable,
    findings: Findings,
    *,
    image_ids: Iterable[int],
) -> list[ImageRecord]:
    """Turn images of a reader, with points in pixels, into records.

    Boxes that extend beyond the image stay as annotated; `findings` collects unusable objects.
    """
    records = []
    for image, image_id in zip(images, image_ids, strict=False):
        rows: list[tuple[float, ...]] = []
        problems = [_problem(each, image, categories) for each in image.objects]
        for each, problem in zip(image.objects, problems, strict=True):
            if problem:
                findings.add(Finding(problem, image.name, each.description, lost_objects=1))
                continue
            x1, y1, x2, y2 = each.box
            area = (x2 - x1) * (y2 - y1) if each.area is None else each.area
            label = categories.label_of[each.class_name]
            rows.append((x1, y1, x2, y2, label, area, each.is_crowd))
        if not rows and image.shows_any_of(categories.label_of):
            findings.skip_unlearnable(image.name, len(problems), None)
            continue
        table = np.array(rows, dtype=np.float64).reshape(-1, 7)
        records.append(
            ImageRecord(
                file_name=image.name,
                image_id=image_id,
                size_wh=image.size_wh,
                boxes_xyxy=table[:, :4],
                labels=table[:, 4].astype(np.int64),
                area=table[:, 5],
                iscrowd=table[:, 6].astype(np.int64),
            )
        )
    return records


def _problem(each: SourceObject, image: SourceImage, categories: CategoryTable) -> str:
    problem = each.problem_among(categories.label_of)
    return "box_outside" if not problem and _is_outside(each.box, image.size_wh) else problem


def _is_outside(box: Box, size_wh: tuple[int, int] | None) -> bool:
    """Return whether a box lies outside its image: evaluation would count it as missed."""
    x1, y1, x2, y2 = box
    return x2 <= 0 or y2 <= 0 or (size_wh is not None and (x1 >= size_wh[0] or y1 >= size_wh[1]))


def _join(parts: list[np.ndarray], dtype: type, empty: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([np.empty(empty, dtype), *parts]).astype(dtype)
