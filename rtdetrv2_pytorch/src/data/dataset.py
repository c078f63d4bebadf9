"""Base class of COCO and VOC data sets: index -> augmented image and target."""

import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..misc.errors import DatasetError
from ..misc.seeding import derive_seed
from ..misc.text import counted, printable
from ..structures import Target
from .annotation_arrays import Annotations, ImageRecord
from .augment.compose import Compose
from .augment.sample import Sample
from .categories import CategoryTable
from .images.decoding import read_rgb
from .images.image_cache import CacheKind, make_cache
from .images.pixel_range import PixelRange

logger = logging.getLogger(__name__)

Item = tuple[Tensor, Target]


class DetectionDataset(Dataset[Item | None]):
    """Annotated images, read and augmented on demand.

    The randomness of an item is a function of (seed, epoch, index): it is the same in any worker,
    in any order, and after resume.

    Args:
        annotations: images and boxes.
        img_folder: folder of the files.
        transforms: augmentation, or None.
        seed: of the run.
        unreadable: what to return for an unreadable image: "skip" returns None, which the collate
            function drops; "replace" returns the next readable image, so that training batches
            keep their size. Both log the image once.
        cache: where to keep decoded images; see `image_cache`.
        pixel_range: scaling of images with more than 8 bits; see `PixelRange`.
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
        pixel_range: PixelRange | None = None,
    ) -> None:
        self.annotations = annotations
        self.cache = make_cache(cache, annotations, img_folder, pixel_range)
        self.pixel_range = pixel_range
        self.img_folder = img_folder
        self.transforms = transforms
        if transforms is not None:
            transforms.bind(self)
        self.seed = seed
        self.unreadable = unreadable
        # Shared with the workers, which outlive an epoch.
        self._epoch = _shared(torch.zeros((), dtype=torch.int64))
        self._is_unreadable = _shared(torch.zeros(len(annotations), dtype=torch.bool))
        self._reported: set[int] = set()

    @property
    def categories(self) -> CategoryTable:
        """Classes in the order of the labels."""
        return self.annotations.categories

    @property
    def epoch(self) -> int:
        """The epoch whose augmentations are sampled."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Sample the augmentations of this epoch, in all workers."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> Item | None:
        return self.load(range(len(self))[index])  # IndexError ends a plain loop over the data set

    def load(self, index: int) -> Item | None:
        """Read and augment an image; None if it cannot be read and is not replaced.

        Args:
            index: of the image, plus a multiple of the number of images for a copy with another
                augmentation.
        """
        copy, index = divmod(index, len(self))
        if self.unreadable == "replace":
            return self._augment(*self.load_readable(index), copy)
        sample = self._try_load(index)
        return None if sample is None else self._augment(index, sample, copy)

    def check_boxes(self) -> None:
        """Check that the split has a box to learn or measure.

        Raises:
            DatasetError: if it has none, or only crowd regions.
        """
        if not (self.annotations.iscrowd == 0).any():
            raise DatasetError(
                f"{self.img_folder}: none of {counted(len(self), 'image')} has a usable box; label "
                "them, or choose other images for this split"
            )

    def images_by_class(self) -> list[tuple[int, np.ndarray]]:
        """Return `Annotations.images_by_class`."""
        return self.annotations.images_by_class()

    def load_readable(self, index: int) -> tuple[int, Sample]:
        """Read the image at `index`, or the next readable one, without augmentation.

        Returns:
            The index of the image, and its sample.

        Raises:
            DatasetError: if no file can be read.
        """
        for candidate in range(index, index + len(self)):
            sample = self._try_load(candidate % len(self))
            if sample is not None:
                return candidate % len(self), sample
        raise DatasetError(
            f"{self.img_folder}: none of {counted(len(self), 'image')} can be read; check the files"
        )

    def _try_load(self, index: int) -> Sample | None:
        record = self.annotations[index]
        path = self.img_folder / record.file_name
        try:
            pixels = self.cache.get(index, path, lambda: self.read_pixels(record))
        except DatasetError as error:
            self._report(index, str(error))
            return None
        sample = _make_sample(pixels, record)
        if len(record.labels) and not len(sample.boxes) and not len(sample.crowd_boxes):
            self._report(index, f"{path}: none of its boxes is inside the image")
            return None
        return sample

    def _report(self, index: int, problem: str) -> None:
        if not self._is_unreadable[index]:
            self._is_unreadable[index] = True
            logger.warning("%s; the image is not used", printable(problem))

    def read_pixels(self, record: ImageRecord) -> np.ndarray:
        """Decode the file of an image: [H, W, 3] uint8.

        Raises:
            DatasetError: if it cannot be read.
        """
        path = self.img_folder / record.file_name
        return read_rgb(path, record.size_wh, pixel_range=self.pixel_range)

    def new_unreadable(self) -> list[str]:
        """Return the files found unreadable since the previous call."""
        found = set(torch.nonzero(self._is_unreadable).flatten().tolist()) - self._reported
        self._reported |= found
        return [self.annotations[i].file_name for i in sorted(found)]

    def _augment(self, index: int, sample: Sample, copy: int) -> Item:
        width, height = sample.image.shape[2], sample.image.shape[1]
        if self.transforms is not None:
            rng = random.Random(derive_seed(self.seed, self.epoch, index + copy * len(self)))
            sample = self.transforms(sample, rng, self.epoch)
        sample.materialize()
        target = Target(
            boxes=torch.from_numpy(sample.boxes.astype(np.float32)),
            labels=torch.from_numpy(sample.labels.astype(np.int64)),
            image_id=torch.tensor([self.annotations.image_ids[index]]),
            area=torch.from_numpy(sample.area.astype(np.float32)),
            iscrowd=torch.zeros(len(sample.labels), dtype=torch.int64),
            crowd_boxes=torch.from_numpy(sample.crowd_boxes.astype(np.float32)),
            crowd_labels=torch.from_numpy(sample.crowd_labels.astype(np.int64)),
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
        The clipped boxes [N, 4], and whether each has an area left: [N] bool.
    """
    boxes = boxes_xyxy.clip(0, (*size_wh, *size_wh))
    return boxes, (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def _shared(tensor: Tensor) -> Tensor:
    """Move to shared memory; platforms without it have no workers either."""
    try:
        return tensor.share_memory_()
    except RuntimeError as error:
        logger.debug("shared memory is not available: %s", error)
        return tensor


def _make_sample(pixels: np.ndarray, record: ImageRecord) -> Sample:
    """Keep the boxes inside the image with an area; those of crowd regions separately."""
    height, width = pixels.shape[:2]
    boxes, is_inside = boxes_inside(record.boxes_xyxy, (width, height))
    keep, crowd = is_inside & (record.iscrowd == 0), is_inside & (record.iscrowd != 0)
    return Sample(
        image=torch.from_numpy(pixels).permute(2, 0, 1),
        boxes=boxes[keep],
        labels=record.labels[keep],
        area=record.area[keep],
        crowd_boxes=boxes[crowd],
        crowd_labels=record.labels[crowd],
    )


def files_exist(names: Sequence[str], folder: Path) -> list[bool]:
    """Return which files exist; lists each folder once instead of testing each file."""
    listings: dict[Path, set[str]] = {}
    result = []
    for name in names:
        path = folder / name
        if path.parent not in listings:
            listings[path.parent] = _names_in(path.parent)
        result.append(path.name in listings[path.parent])
    return result


def _names_in(folder: Path) -> set[str]:
    """Return the names in a folder; none if it does not exist, or its name is invalid."""
    try:
        return {path.name for path in folder.iterdir()}
    except (OSError, ValueError):
        return set()
