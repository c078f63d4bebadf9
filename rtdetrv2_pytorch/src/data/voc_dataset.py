"""Detection data in Pascal VOC format."""

import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Literal

import numpy as np

from ..misc.errors import DatasetError
from .annotations import Annotations, ImageRecord
from .augment import Compose
from .categories import CategoryTable
from .dataset import DetectionDataset, SkippedItems, SkipReason, keep_existing, why_unusable
from .images.image_cache import CacheKind


class VOCDetection(DetectionDataset):
    """Images with one XML file each, as Pascal VOC has them.

    Args:
        root: folder that the lists are in, and that their entries are relative to.
        ann_file: list with one "image path, annotation path" a line.
        label_file: list with one class name a line; the line number is the label.
        transforms: augmentation, or None.
        categories: labels to use, by class name; default: those of the label file.
        seed: of the run.
        unreadable: see `DetectionDataset`.
        cache: where decoded images are kept, so that files are decoded once: "ram" in memory that
            the workers of a rank share, "disk" in files that survive the run, below
            `~/.cache/rtdetrv2/images`, until you remove that folder; as many images as fit.
            Augmentation comes after it and stays exactly the same.

    Raises:
        DatasetError: if a list cannot be read, or no image is left.
    """

    def __init__(
        self,
        *,
        root: str,
        ann_file: str = "trainval.txt",
        label_file: str = "label_list.txt",
        transforms: Compose | None = None,
        categories: CategoryTable | None = None,
        seed: int = 0,
        unreadable: Literal["skip", "replace"] = "skip",
        cache: CacheKind = "none",
    ) -> None:
        self.ann_file = str(Path(root, ann_file))
        self.skipped = SkippedItems(self.ann_file)
        table = categories or read_labels(Path(root, label_file))
        annotations = _read_voc(Path(root), Path(root, ann_file), table, self.skipped)
        self.skipped.log()
        super().__init__(
            annotations,
            Path(root),
            transforms,
            seed=seed,
            unreadable=unreadable,
            cache=cache,
        )


def read_labels(path: Path) -> CategoryTable:
    """Read the list of class names.

    Raises:
        DatasetError: if there is no such file, or it is empty.
    """
    names = tuple(_lines(path))
    if not names:
        raise DatasetError(f"{path}: is empty; write one class name a line")
    for name in names:
        if names.count(name) > 1:
            raise DatasetError(f"{path}: class {name!r} occurs more than once; name it once")
    return CategoryTable(tuple(range(len(names))), names)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read ({error})") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _read_voc(
    root: Path, ann_file: Path, table: CategoryTable, skipped: SkippedItems
) -> Annotations:
    pairs = []
    for line in _lines(ann_file):
        parts = line.split()
        if len(parts) != 2:
            raise DatasetError(f"{ann_file}: line {line!r} is not 'image path annotation path'")
        pairs.append((parts[0], parts[1]))
    exists = keep_existing([image for image, _ in pairs], root, skipped)
    records = []
    for number, ((image, annotation), there) in enumerate(zip(pairs, exists, strict=True)):
        if there:
            record = _read_xml(root / annotation, image, number, table, skipped)
            if record is not None:
                records.append(record)
    if not records:
        raise DatasetError(f"{ann_file}: none of its {len(pairs)} images can be used")
    return Annotations(records, table)


def _read_xml(
    path: Path, image: str, image_id: int, table: CategoryTable, skipped: SkippedItems
) -> ImageRecord | None:
    try:
        tree = ET.parse(path).getroot()
    # The path may hold a byte 0, the XML name an encoding that there is not.
    except (OSError, ET.ParseError, ValueError, LookupError) as error:
        skipped.add("annotation file that cannot be read", f"{path.name}: {error}")
        return None
    size_wh = _declared_size(tree)
    rows = []
    for item in tree.iter("object"):
        name = item.findtext("name", "").strip()
        if name not in table.names:
            skipped.add("object of an unknown class", f"{name!r} in {path.name}")
            continue
        try:
            # Corners as written, though VOC counts pixels from 1: half a pixel at most.
            x1, y1, x2, y2 = (
                float(item.findtext(f"bndbox/{k}", "nan")) for k in ("xmin", "ymin", "xmax", "ymax")
            )
        except ValueError:
            x1 = y1 = x2 = y2 = math.nan
        is_finite = all(map(math.isfinite, (x1, y1, x2, y2)))
        reason = why_unusable((x1, y1, x2, y2), size_wh) if is_finite else SkipReason.NO_AREA
        if reason is not None:
            skipped.add(reason, f"{name} in {path.name}")
            continue
        # Difficult objects are trained on and evaluated like all others.
        rows.append((x1, y1, x2, y2, table.names.index(name), (x2 - x1) * (y2 - y1)))
    table_rows = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return ImageRecord(
        file_name=image,
        image_id=image_id,
        size_wh=size_wh,
        boxes_xyxy=table_rows[:, :4],
        labels=table_rows[:, 4].astype(np.int64),
        area=table_rows[:, 5],
        iscrowd=np.zeros(len(table_rows), dtype=np.int64),
    )


def _declared_size(tree: ET.Element) -> tuple[int, int] | None:
    try:
        width, height = (int(float(tree.findtext(f"size/{k}") or 0)) for k in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None
