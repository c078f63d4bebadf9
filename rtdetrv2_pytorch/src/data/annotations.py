"""All annotations of a split in a few flat arrays.

Worker processes share them without copying: there are no Python objects per image or box whose
reference counts would make every page of memory their own, epoch after epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .categories import CategoryTable

# Names of files need not be proper text, neither on disk nor in JSON.
_ANY_NAME = ("utf-8", "surrogatepass")
_MAX_SIDE = 2**31 - 1  # of a declared size: no image has it, and arrays hold it


@dataclass(frozen=True)
class ImageRecord:
    """What is known of one image before it is read."""

    file_name: str
    image_id: int
    size_wh: tuple[int, int] | None  # as declared, if it is
    boxes_xyxy: np.ndarray  # [N, 4] float64 pixels, as annotated: may leave the image
    labels: np.ndarray  # [N] int64
    area: np.ndarray  # [N] float64
    iscrowd: np.ndarray  # [N] int64


class Annotations:
    """Images and boxes of one split.

    Args:
        records: one per image.
        categories: the table that the labels refer to.
    """

    def __init__(self, records: Sequence[ImageRecord], categories: CategoryTable) -> None:
        self.categories = categories
        names = [r.file_name.encode(*_ANY_NAME) for r in records]
        self._names = np.frombuffer(b"".join(names), dtype=np.uint8)
        self._name_ends = np.cumsum([len(n) for n in names], dtype=np.int64)
        self._box_ends = np.cumsum([len(r.labels) for r in records], dtype=np.int64)
        self.image_ids = np.array([r.image_id for r in records], dtype=np.int64)
        # (width, height) as declared; zeros where nothing is.
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
        """[images] number of boxes of each."""
        return np.diff(self._box_ends, prepend=0)

    def to_coco(self) -> dict[str, Any]:
        """The COCO dict that the metrics are computed against."""
        ids = self.categories.evaluation_ids
        owners = np.repeat(self.image_ids, self.boxes_per_image())
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
                for i, (w, h) in zip(self.image_ids.tolist(), self.sizes_wh.tolist(), strict=True)
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


def _join(parts: list[np.ndarray], dtype: type, empty: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([np.empty(empty, dtype), *parts]).astype(dtype)
