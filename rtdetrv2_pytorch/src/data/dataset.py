"""What COCO and VOC data have in common: index -> augmented image and target."""

import logging
import random
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..misc.errors import DatasetError
from ..misc.seeding import derive_seed
from ..misc.text import printable
from ..structures import Target
from .annotations import Annotations, ImageRecord
from .augment import Compose, Sample
from .categories import CategoryTable
from .images.decoding import read_rgb
from .images.image_cache import CacheKind, make_cache

logger = logging.getLogger(__name__)

Item = tuple[Tensor, Target]


class DetectionDataset(Dataset[Item | None]):
    """Annotated images, read and augmented on demand.

    The randomness of an item is a function of (seed, epoch, index): the same in any worker, in
    any order, and after a resume.

    Args:
        annotations: images and boxes.
        img_folder: folder of the files.
        transforms: augmentation, or None.
        seed: of the run.
        unreadable: what becomes of an image that cannot be read when its turn comes: "skip"
            gives None, which the collate function leaves out; "replace" gives the next readable
            one, so that training batches keep their size. Either way it is named once.
        cache: where decoded images are kept; see `image_cache`.
    """

    def __init__(
        self,
        annotations: Annotations,
        img_folder: Path,
        transforms: Compose | None,
        *,
        seed: int,
        unreadable: Literal["skip", "replace"],
        cache: CacheKind = "none",
    ) -> None:
        self.annotations = annotations
        self.cache = make_cache(cache, annotations, img_folder)
        self.img_folder = img_folder
        self.transforms = transforms
        if transforms is not None:
            transforms.bind(self)
        self.seed = seed
        self.unreadable = unreadable
        # Shared with the workers, which live longer than an epoch.
        self._epoch = _shared(torch.zeros((), dtype=torch.int64))
        self._is_unreadable = _shared(torch.zeros(len(annotations), dtype=torch.bool))
        self._reported: set[int] = set()

    @property
    def categories(self) -> CategoryTable:
        """The table of classes."""
        return self.annotations.categories

    @property
    def epoch(self) -> int:
        """The epoch whose augmentations are drawn."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draw the augmentations of this epoch from now on, in all workers."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> Item | None:
        index = range(len(self))[index]  # an IndexError ends a plain loop over the data
        if self.unreadable == "replace":
            return self._augment(*self.load_readable(index))
        sample = self._try_load(index)
        return None if sample is None else self._augment(index, sample)

    def check_boxes(self) -> None:
        """Refuse a split without a single box: nothing could be learned or measured.

        Raises:
            DatasetError: if there is none but around crowds.
        """
        if not (self.annotations.iscrowd == 0).any():
            raise DatasetError(
                f"{self.img_folder}: none of {len(self)} images has a usable box; label them, or "
                "choose other images for this split"
            )

    def load_readable(self, index: int) -> tuple[int, Sample]:
        """Read an image and its boxes, without augmentation; if need be, the next one.

        Returns:
            The index of the image that was read, and its sample.

        Raises:
            DatasetError: if no file can be read.
        """
        for candidate in range(index, index + len(self)):
            sample = self._try_load(candidate % len(self))
            if sample is not None:
                return candidate % len(self), sample
        raise DatasetError(f"{self.img_folder}: none of {len(self)} images can be read")

    def _try_load(self, index: int) -> Sample | None:
        record = self.annotations[index]
        path = self.img_folder / record.file_name
        try:
            pixels = self.cache.get(index, path, lambda: read_rgb(path, record.size_wh))
        except DatasetError as error:
            if not self._is_unreadable[index]:
                self._is_unreadable[index] = True
                logger.warning("%s; the image is not used", printable(str(error)))
            return None
        return _make_sample(pixels, record)

    def new_unreadable(self) -> list[str]:
        """Files found unreadable since this was asked last."""
        found = set(torch.nonzero(self._is_unreadable).flatten().tolist()) - self._reported
        self._reported |= found
        return [self.annotations[i].file_name for i in sorted(found)]

    def _augment(self, index: int, sample: Sample) -> Item:
        width, height = sample.image.shape[2], sample.image.shape[1]
        if self.transforms is not None:
            rng = random.Random(derive_seed(self.seed, self.epoch, index))
            sample = self.transforms(sample, rng, self.epoch)
        sample.materialize()
        target = Target(
            boxes=torch.from_numpy(sample.boxes.astype(np.float32)),
            labels=torch.from_numpy(sample.labels.astype(np.int64)),
            image_id=torch.tensor([self.annotations.image_ids[index]]),
            area=torch.from_numpy(sample.area.astype(np.float32)),
            iscrowd=torch.zeros(len(sample.labels), dtype=torch.int64),
            orig_size=torch.tensor([width, height]),
            idx=torch.tensor([index]),
        )
        return sample.image, target


def boxes_inside(boxes_xyxy: np.ndarray, size_wh: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Clip boxes to their image.

    Args:
        boxes_xyxy: [N, 4] pixels.
        size_wh: (width, height) of the image.

    Returns:
        The clipped boxes [N, 4], and which of them still have an area: [N] bool.
    """
    boxes = boxes_xyxy.clip(0, (*size_wh, *size_wh))
    return boxes, (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def _shared(tensor: Tensor) -> Tensor:
    """Move to shared memory; where there is none, there are no workers to share with either."""
    try:
        return tensor.share_memory_()
    except RuntimeError as error:
        logger.debug("no shared memory: %s", error)
        return tensor


def _make_sample(pixels: np.ndarray, record: ImageRecord) -> Sample:
    """Boxes as training wants them: no crowds, inside the image, with an area."""
    height, width = pixels.shape[:2]
    boxes, keep = boxes_inside(record.boxes_xyxy, (width, height))
    keep = keep & (record.iscrowd == 0)
    return Sample(
        image=torch.from_numpy(pixels).permute(2, 0, 1),
        boxes=boxes[keep],
        labels=record.labels[keep],
        area=record.area[keep],
    )


class SkipReason(StrEnum):
    """Why a part of an annotation file is not used."""

    NO_NAME = "image entry without id or file_name"
    MISSING = "image file missing"
    NO_OBJECT = "annotation that is no object"
    NO_IMAGE = "annotation of an image that is not used"
    UNKNOWN_CLASS = "annotation with an unknown category_id"
    NOT_FOUR_NUMBERS = "box that is not four numbers"
    NO_AREA = "box without area"
    OUTSIDE = "box outside its image"


class SkippedItems:
    """Collects what could not be used while annotations are read, and says it in one line."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._reasons: dict[str, list[str]] = {}

    def add(self, reason: str, what: Any) -> None:
        """Note one skipped thing, for example ("box without area", "image 17")."""
        self._reasons.setdefault(reason, []).append(printable(str(what)))

    def counts(self) -> dict[str, int]:
        """Number of skipped things per reason."""
        return {reason: len(items) for reason, items in self._reasons.items()}

    def log(self) -> None:
        """Warn once per reason, with the first names."""
        for reason, items in self._reasons.items():
            shown = ", ".join(items[:5]) + (", ..." if len(items) > 5 else "")
            logger.warning("%s: %d skipped: %s (%s)", self.source, len(items), reason, shown)


def why_unusable(
    corners: tuple[float, float, float, float], size_wh: tuple[int, int] | None
) -> SkipReason | None:
    """What is wrong with a box (x1, y1, x2, y2) of an image, whose size may not be declared."""
    x1, y1, x2, y2 = corners
    if not (x2 > x1 and y2 > y1):
        return SkipReason.NO_AREA
    # Nobody can find it there: it would count as missed in every evaluation.
    if x2 <= 0 or y2 <= 0 or (size_wh and (x1 >= size_wh[0] or y1 >= size_wh[1])):
        return SkipReason.OUTSIDE
    return None


def keep_existing(names: Sequence[str], folder: Path, skipped: SkippedItems) -> list[bool]:
    """Tell which files exist, listing every folder once instead of asking for every file."""
    listings: dict[Path, set[str]] = {}
    result = []
    for name in names:
        path = folder / name
        if path.parent not in listings:
            listings[path.parent] = _names_in(path.parent)
        exists = path.name in listings[path.parent]
        if not exists:
            skipped.add(SkipReason.MISSING, name)
        result.append(exists)
    return result


def _names_in(folder: Path) -> set[str]:
    """Names in a folder; none if it is not there, or its name is none that could be."""
    try:
        return {path.name for path in folder.iterdir()}
    except (OSError, ValueError):
        return set()
