"""Detection data in COCO format."""

import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..misc.errors import DatasetError
from .annotations import Annotations, ImageRecord
from .augment import Compose
from .categories import CategoryId, CategoryTable, normalise_id
from .dataset import DetectionDataset, SkippedItems, SkipReason, keep_existing, why_unusable
from .images.image_cache import CacheKind


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
        cache: where decoded images are kept, so that files are decoded once: "ram" in memory that
            the workers of a rank share, "disk" in files that survive the run, below
            `~/.cache/rtdetrv2/images`, until you remove that folder; as many images as fit.
            Augmentation comes after it and stays exactly the same.

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
        cache: CacheKind = "none",
    ) -> None:
        self.ann_file = ann_file
        self.skipped = SkippedItems(ann_file)
        reference = CategoryTable.mscoco() if remap_mscoco_category else categories
        annotations = read_coco(Path(ann_file), Path(img_folder), self.skipped, reference)
        self.skipped.log()
        super().__init__(
            annotations,
            Path(img_folder),
            transforms,
            seed=seed,
            unreadable=unreadable,
            cache=cache,
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
    except (ValueError, RecursionError) as error:  # a number or a nesting without end
        raise DatasetError(f"{path}: is no JSON that can be read ({error})") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DatasetError(
                f"{path}: has no list {key!r}; a COCO detection file has images, annotations and "
                "categories"
            )
    return content


def read_categories(content: Mapping[str, Any], source: str) -> CategoryTable:
    """The classes of a COCO file.

    Args:
        content: of the file.
        source: the file, for messages.

    Raises:
        DatasetError: if there are none, or ids or names repeat.
    """
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
    return parse_coco(read_coco_json(ann_file), ann_file, img_folder, skipped, reference)


def parse_coco(
    content: Mapping[str, Any],
    ann_file: Path,
    img_folder: Path,
    skipped: SkippedItems,
    reference: CategoryTable | None,
) -> Annotations:
    """`read_coco` of a file that is read already; `ann_file` is for messages only."""
    own = read_categories(content, str(ann_file))
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
            skipped.add(SkipReason.NO_NAME, entry)
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
    width, height = normalise_id(image.get("width")), normalise_id(image.get("height"))
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return width, height
    return None


@dataclass(frozen=True)
class AnnotationEntry:
    """An entry of `annotations`, as people are told of it."""

    entry: Mapping[str, Any]
    image_id: CategoryId

    def __str__(self) -> str:
        return f"annotation {self.entry.get('id')} of image {self.image_id}"


def _boxes_by_image(
    entries: Iterable[Any],
    images: Mapping[CategoryId, Mapping[str, Any]],
    label_of: Mapping[CategoryId, int],
    skipped: SkippedItems,
) -> dict[CategoryId, list[tuple[float, ...]]]:
    """Group usable boxes: (x1, y1, x2, y2, label, area, iscrowd) per image."""
    sizes = {id_: _declared_size(image) for id_, image in images.items()}
    grouped: dict[CategoryId, list[tuple[float, ...]]] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            skipped.add(SkipReason.NO_OBJECT, entry)
            continue
        image_id = normalise_id(entry.get("image_id"))
        label = label_of.get(normalise_id(entry.get("category_id")))
        box = _numbers(entry.get("bbox"))
        reason = _why_unusable(image_id in images, label, box, sizes.get(image_id))
        if reason is not None or label is None or box is None:
            skipped.add(reason or SkipReason.NO_OBJECT, AnnotationEntry(entry, image_id))
            continue
        x, y, width, height = box
        area = entry.get("area")
        if not isinstance(area, int | float) or not 0 <= area <= sys.float_info.max:
            area = width * height
        crowd = float(normalise_id(entry.get("iscrowd") or 0) != 0)
        grouped.setdefault(image_id, []).append((x, y, x + width, y + height, label, area, crowd))
    return grouped


def _why_unusable(
    has_image: bool,
    label: int | None,
    box: tuple[float, float, float, float] | None,
    size_wh: tuple[int, int] | None,
) -> SkipReason | None:
    if not has_image:
        return SkipReason.NO_IMAGE
    if label is None:
        return SkipReason.UNKNOWN_CLASS
    if box is None:
        return SkipReason.NOT_FOUR_NUMBERS
    x, y, width, height = box
    return why_unusable((x, y, x + width, y + height), size_wh)


def _numbers(value: Any) -> tuple[float, float, float, float] | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    try:
        x, y, width, height = (float(v) for v in value)
    except (TypeError, ValueError, OverflowError):
        return None
    box = (x, y, width, height)
    return box if all(math.isfinite(v) for v in box) else None
