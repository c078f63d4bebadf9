"""Detection data in COCO format."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..misc.errors import DatasetError
from .annotations import Annotations, ImageRecord
from .categories import CategoryId, CategoryTable, normalise_id
from .compose import Compose
from .dataset import DetectionDataset, SkippedItems, keep_existing


class CocoDetection(DetectionDataset):
    """Images with a COCO annotation file.

    Args:
        img_folder: folder that `file_name` entries are relative to.
        ann_file: the annotation file.
        transforms: augmentation, or None.
        return_masks: segmentation masks are not supported; kept for existing YAML files.
        remap_mscoco_category: insist on COCO's own 80 categories.
        categories: labels to use, by class name; default: those of this file.
        seed: of the run.
        unreadable: see `DetectionDataset`.

    Raises:
        DatasetError: if the file cannot be used, or no image is left.
    """

    def __init__(
        self,
        *,
        img_folder: str,
        ann_file: str,
        transforms: Compose | None,
        return_masks: Literal[False] = False,
        remap_mscoco_category: bool = False,
        categories: CategoryTable | None = None,
        seed: int = 0,
        unreadable: Literal["skip", "replace"] = "skip",
    ) -> None:
        self.ann_file = ann_file
        self.skipped = SkippedItems(ann_file)
        reference = CategoryTable.mscoco() if remap_mscoco_category else categories
        annotations = read_coco(Path(ann_file), Path(img_folder), self.skipped, reference)
        self.skipped.log()
        super().__init__(
            annotations, Path(img_folder), transforms, seed=seed, unreadable=unreadable
        )


def read_coco_json(path: Path) -> dict[str, Any]:
    """Read a COCO file and check its outline.

    Raises:
        DatasetError: if it is missing, no JSON, or not in COCO format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: is not in UTF-8 ({error.reason}); save it as UTF-8") from error
    except json.JSONDecodeError as error:
        raise DatasetError(
            f"{path}: is not valid JSON at line {error.lineno}, column {error.colno} ({error.msg})"
        ) from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DatasetError(
                f"{path}: has no list {key!r}; a COCO detection file has images, annotations and "
                "categories"
            )
    return content


def _categories(content: Mapping[str, Any], source: str) -> CategoryTable:
    used = {
        normalise_id(a.get("category_id")) for a in content["annotations"] if isinstance(a, dict)
    }
    return CategoryTable.from_coco(content["categories"], used, source=source)


def read_coco(
    ann_file: Path, img_folder: Path, skipped: SkippedItems, reference: CategoryTable | None
) -> Annotations:
    """Read a COCO file into flat arrays.

    Args:
        ann_file: the annotation file.
        img_folder: folder of the images.
        skipped: collects what cannot be used.
        reference: table whose labels to use; None for the file's own.

    Raises:
        DatasetError: if nothing usable is left, or image ids repeat.
    """
    content = read_coco_json(ann_file)
    own = _categories(content, str(ann_file))
    table = reference or own
    label_of = table.labels_of(own, source=str(ann_file)) if reference else own.label_of

    images = _images(content["images"], str(ann_file), skipped)
    if not images:
        raise DatasetError(f"{ann_file}: lists no images; a split needs at least one")
    exists = keep_existing([i["file_name"] for i in images.values()], img_folder, skipped)
    images = {id_: i for (id_, i), there in zip(images.items(), exists, strict=True) if there}
    if not images:
        raise DatasetError(
            f"{ann_file}: none of its {len(content['images'])} images is in {img_folder}; "
            "check the image folder of this split"
        )
    boxes = _boxes_by_image(content["annotations"], images, label_of, skipped)
    # The metrics want integers that a float can hold; other ids of images are numbered.
    numbered = not all(isinstance(id_, int) and abs(id_) <= 2**53 for id_ in images)
    records = []
    for number, (id_, image) in enumerate(images.items(), start=1):
        rows = np.array(boxes.get(id_, []), dtype=np.float64).reshape(-1, 7)
        records.append(
            ImageRecord(
                file_name=image["file_name"],
                image_id=number if numbered else int(id_),
                size_wh=_declared_size(image),
                boxes_xyxy=rows[:, :4],
                labels=rows[:, 4].astype(np.int64),
                area=rows[:, 5],
                iscrowd=rows[:, 6].astype(np.int64),
            )
        )
    return Annotations(records, table)


def _images(
    entries: Iterable[Any], source: str, skipped: SkippedItems
) -> dict[CategoryId, Mapping[str, Any]]:
    images: dict[CategoryId, Mapping[str, Any]] = {}
    for entry in entries:
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if not name or not isinstance(name, str) or "id" not in entry:
            skipped.add("image entry without id or file_name", entry)
            continue
        id_ = normalise_id(entry["id"])
        if id_ in images:
            raise DatasetError(
                f"{source}: image id {id_!r} occurs more than once ({images[id_]['file_name']}, "
                f"{entry['file_name']}); boxes cannot be told apart, give every image its own id"
            )
        images[id_] = entry
    return images


def _declared_size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return width, height
    return None


def _boxes_by_image(
    entries: Iterable[Any],
    images: Mapping[CategoryId, Mapping[str, Any]],
    label_of: Mapping[CategoryId, int],
    skipped: SkippedItems,
) -> dict[CategoryId, list[tuple[float, ...]]]:
    """Group usable boxes: (x1, y1, x2, y2, label, area, iscrowd) per image."""
    grouped: dict[CategoryId, list[tuple[float, ...]]] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            skipped.add("annotation that is no object", entry)
            continue
        image_id = normalise_id(entry.get("image_id"))
        name = f"annotation {entry.get('id')} of image {image_id}"
        label = label_of.get(normalise_id(entry.get("category_id")))
        if image_id not in images:
            skipped.add("annotation of an image that is not used", name)
            continue
        if label is None:
            skipped.add("annotation with an unknown category_id", name)
            continue
        box = _numbers(entry.get("bbox"))
        if box is None:
            skipped.add("box that is not four numbers", name)
            continue
        x, y, width, height = box
        if width <= 0 or height <= 0:
            skipped.add("box without area", name)
            continue
        area = entry.get("area")
        area = float(area) if isinstance(area, int | float) and area >= 0 else width * height
        crowd = float(normalise_id(entry.get("iscrowd") or 0) != 0)
        grouped.setdefault(image_id, []).append((x, y, x + width, y + height, label, area, crowd))
    return grouped


def _numbers(value: Any) -> tuple[float, float, float, float] | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    try:
        x, y, width, height = (float(v) for v in value)
    except (TypeError, ValueError):
        return None
    box = (x, y, width, height)
    return box if all(math.isfinite(v) for v in box) else None
