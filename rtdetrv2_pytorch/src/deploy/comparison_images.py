"""Images to verify an export on: of a validation split, given by the user, or generated."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import overload

import numpy as np

from ..data.annotation_arrays import Annotations
from ..data.categories import CategoryTable
from ..data.coco_dataset import read_coco
from ..data.findings import Findings
from ..data.images.decoding import read_rgb
from ..misc.errors import DatasetError
from ..misc.text import counted
from .model_card import ModelCard

logger = logging.getLogger(__name__)

MAX_IMAGES = 64
_NUM_CROPS = 2
_GENERATED_HW = ((480, 640), (640, 480), (333, 500), (720, 1280), (97, 211), (512, 512))


@dataclass(frozen=True)
class ComparisonImages:
    """Images of several sizes, with annotations if available."""

    images: Sequence[np.ndarray]  # [H, W, 3] uint8 RGB each
    origin: str  # description for the report
    annotations: Annotations | None = None  # of the first `len(image_ids)` images
    image_ids: tuple[int, ...] = ()  # of the annotated images, in the order of `images`

    @property
    def sizes_wh(self) -> list[tuple[int, int]]:
        """Distinct (width, height), sorted."""
        return sorted({(image.shape[1], image.shape[0]) for image in self.images})


def validation_images(
    ann_file: Path, img_folder: Path, card: ModelCard, limit: int = MAX_IMAGES
) -> ComparisonImages:
    """Load up to `limit` images of a COCO split, spread over it and of as many sizes as possible.

    If all images have one size, crops without annotations are added. Classes and pixel range are
    those of the model.

    Raises:
        DatasetError: if the split is not usable or has classes that are unknown to the model.
    """
    annotations = _read_annotations(ann_file, img_folder, card)
    images, ids = [], []
    for image_id, _, image in _readable_images(annotations, img_folder, card, limit):
        images.append(image)
        ids.append(image_id)
    if not images:
        raise DatasetError(
            f"{img_folder}: no image of {ann_file.name} is readable; give others with --images"
        )
    origin = f"{len(images)} of {counted(len(annotations), 'image')} of {ann_file.name}"
    if len({image.shape for image in images}) == 1:
        crops = [_crop(image) for image in images[:_NUM_CROPS]]
        images += crops
        origin += f" and {counted(len(crops), 'crop')}"
    return ComparisonImages(images, origin, annotations, tuple(ids))


def split_images(ann_file: Path, img_folder: Path, card: ModelCard, limit: int) -> ComparisonImages:
    """Choose up to `limit` images as `validation_images` does, without crops.

    Images are decoded again each time they are used, so that any number of them fits in memory.

    Raises:
        DatasetError: as `validation_images`.
    """
    annotations = _read_annotations(ann_file, img_folder, card)
    readable = _readable_images(annotations, img_folder, card, limit)
    chosen = [(image_id, read) for image_id, read, _ in readable]
    if not chosen:
        raise DatasetError(f"{img_folder}: no image of {ann_file.name} is readable; give others")
    origin = f"{len(chosen)} of {counted(len(annotations), 'image')} of {ann_file.name}"
    images = _ImageFiles([read for _, read in chosen])
    return ComparisonImages(images, origin, annotations, tuple(id_ for id_, _ in chosen))


class _ImageFiles(Sequence[np.ndarray]):
    """Images that are decoded when they are used.

    Args:
        readers: return one image each.
    """

    def __init__(self, readers: Sequence[Callable[[], np.ndarray]]) -> None:
        self._readers = readers

    def __len__(self) -> int:
        return len(self._readers)

    @overload
    def __getitem__(self, place: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, place: slice) -> list[np.ndarray]: ...

    def __getitem__(self, place: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(place, slice):
            return [read() for read in self._readers[place]]
        return self._readers[place]()


def given_images(paths: Sequence[Path], card: ModelCard) -> ComparisonImages:
    """Load image files without annotations, as the model reads them.

    Raises:
        DatasetError: if a file is not readable.
    """
    images = [read_rgb(path, pixel_range=card.pixel_range) for path in paths]
    return ComparisonImages(images, f"{counted(len(paths), 'given image')}")


def generated_images() -> ComparisonImages:
    """Generate random rectangles on gradients, for use without a data set."""
    rng = np.random.default_rng(0)
    images = []
    for height, width in _GENERATED_HW:
        across = np.linspace(0, 1, width)[None, :, None] * rng.uniform(60, 200, 3)
        image = across + np.linspace(0, 55, height)[:, None, None]
        for _ in range(8):
            top, left = int(rng.integers(height)), int(rng.integers(width))
            bottom = top + int(rng.integers(8, max(9, height // 2)))
            right = left + int(rng.integers(8, max(9, width // 2)))
            image[top:bottom, left:right] = rng.uniform(0, 255, 3)
        noise = rng.normal(0, 6, image.shape)
        images.append((image + noise).clip(0, 255).astype(np.uint8))
    return ComparisonImages(images, f"{counted(len(images), 'generated image')}")


def _read_annotations(ann_file: Path, img_folder: Path, card: ModelCard) -> Annotations:
    """Read a COCO file with the classes of a model, which are matched by name."""
    names = tuple(card.class_names)
    table = CategoryTable(tuple(range(1, len(names) + 1)), names)  # ids only have to be distinct
    return read_coco(ann_file, img_folder, Findings(), table)


def _readable_images(
    annotations: Annotations, img_folder: Path, card: ModelCard, limit: int
) -> Iterator[tuple[int, Callable[[], np.ndarray], np.ndarray]]:
    """Yield the id, a function that reads the image, and the image, of chosen images."""
    for place in _choose_images(annotations, limit):
        record = annotations[place]
        path = img_folder / record.file_name
        read = partial(read_rgb, path, record.size_wh, pixel_range=card.pixel_range)
        try:
            yield record.image_id, read, read()
        except DatasetError as error:
            logger.warning("Skipping an image of the export verification: %s", error)


def _choose_images(annotations: Annotations, limit: int) -> list[int]:
    """Return indices of up to `limit` images of all sizes, evenly over the split."""
    by_size: dict[object, list[int]] = {}
    for place in range(len(annotations)):
        by_size.setdefault(annotations[place].size_wh, []).append(place)
    groups = list(by_size.values())
    chosen: set[int] = set()
    for group in groups[:limit]:
        chosen.update(_evenly_spaced(group, max(1, limit // len(groups))))
    rest = [place for place in range(len(annotations)) if place not in chosen]
    chosen.update(_evenly_spaced(rest, limit - len(chosen)))
    return sorted(chosen)


def _evenly_spaced(places: Sequence[int], count: int) -> list[int]:
    count = min(count, len(places))
    return [places[i * len(places) // count] for i in range(count)]


def _crop(image: np.ndarray) -> np.ndarray:
    """Return the middle half of the width and three quarters of the height."""
    height, width = image.shape[:2]
    return image[height // 8 : height - height // 8, width // 4 : width - width // 4].copy()
