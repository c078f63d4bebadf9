"""Detection data in COCO format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ..misc.errors import DatasetError
from ..misc.text import counted
from .annotation_arrays import Annotations, make_records
from .augment.compose import Compose
from .categories import CategoryTable
from .dataset import DetectionDataset, files_exist
from .findings import Finding, Findings, grouped
from .images.image_cache import CacheKind
from .images.pixel_range import PixelRange
from .readers.coco_json import (
    group_annotations,
    image_entries,
    make_images,
    read_categories,
    read_coco_json,
    without_images,
)


class CocoDetection(DetectionDataset):
    """Images with a COCO annotation file.

    Args:
        img_folder: folder that `file_name` entries are relative to.
        ann_file: the annotation file.
        transforms: augmentation, or None.
        return_masks: segmentation masks are not supported; kept for existing YAML files.
        remap_mscoco_category: use the labels of the 80 COCO categories.
        categories: classes in the order of the labels; default: those of this file.
        seed: of the run.
        unreadable: see `DetectionDataset`.
        cache: where to keep decoded images: "ram" in memory shared by the workers of a rank, "disk"
            in `~/.cache/rtdetrv2/images` until you remove that folder; as many images as fit.
            Augmentation is not affected.
        pixel_range: scaling of images with more than 8 bits; see `PixelRange`.

    Raises:
        DatasetError: if the file is invalid, or contains no usable image.
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
        pixel_range: PixelRange | None = None,
    ) -> None:
        self.ann_file = ann_file
        self.findings = Findings()
        reference = CategoryTable.mscoco() if remap_mscoco_category else categories
        annotations = read_coco(Path(ann_file), Path(img_folder), self.findings, reference)
        self.findings.log(ann_file)
        super().__init__(
            annotations,
            Path(img_folder),
            transforms,
            seed=seed,
            unreadable=unreadable,
            cache=cache,
            pixel_range=pixel_range,
        )


def read_coco(
    ann_file: Path, img_folder: Path, findings: Findings, reference: CategoryTable | None
) -> Annotations:
    """Read a COCO file into flat arrays; `findings` collects unusable images and boxes.

    Labels follow the classes of `reference`, or else those of the file.

    Raises:
        DatasetError: if no usable image is left, or image ids repeat.
    """
    return parse_coco(read_coco_json(ann_file), ann_file, img_folder, findings, reference)


def parse_coco(
    content: Mapping[str, Any],
    ann_file: Path,
    img_folder: Path,
    findings: Findings,
    reference: CategoryTable | None,
) -> Annotations:
    """Parse the content of a COCO file; see `read_coco`. `ann_file` is for messages only."""
    own = read_categories(content, str(ann_file))
    table = reference or own
    table.check_shared(own, source=str(ann_file))

    entries = image_entries(content, findings, strict=str(ann_file))
    if not entries:
        reason = without_images(len(content["images"]))
        raise DatasetError(f"{ann_file}: {reason}; a split needs at least one")
    annotations = group_annotations(content, entries, findings)
    exist = files_exist([entry["file_name"] for entry in entries.values()], img_folder)
    for (id_, entry), exists in zip(list(entries.items()), exist, strict=True):
        if not exists:
            lost = len(annotations.pop(id_, ()))
            name = entry["file_name"]
            findings.add(Finding("missing_image", name, lost_images=1, lost_objects=lost))
            del entries[id_]
    if not entries:
        raise DatasetError(
            f"{ann_file}: none of its {counted(len(content['images']), 'image')} is in "
            f"{img_folder}; check the image folder of this split"
        )
    # The metrics need integers that a float can represent; other ids are numbered.
    is_usable = all(isinstance(id_, int) and abs(id_) <= 2**53 for id_ in entries)
    image_ids = [int(id_) for id_ in entries] if is_usable else range(1, len(entries) + 1)
    class_of = dict(zip(own.ids, own.names, strict=True))
    paths = {id_: img_folder / entry["file_name"] for id_, entry in entries.items()}
    images = make_images(entries, annotations, class_of, paths, findings)
    records = make_records(images, table, findings, image_ids=image_ids)
    if not records:
        raise DatasetError(
            f"{ann_file}: none of its {counted(len(entries), 'image')} has a usable object: "
            f"{grouped(findings)[0]}; repair the annotations"
        )
    return Annotations(records, table)
