"""The images of a prediction: one image, several, a folder or a video."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Union
from urllib.parse import urlparse

import numpy as np
from PIL import Image
from torch import Tensor

from rtdetrv2_pytorch.src.data.images.conversion import ImageLike, to_rgb
from rtdetrv2_pytorch.src.data.images.opening import is_hidden, is_image
from rtdetrv2_pytorch.src.data.images.pixel_range import PixelRange
from rtdetrv2_pytorch.src.misc.errors import DatasetError

from .video import Video, is_video

# An image, or several.
ImageSource = Union[ImageLike, "Iterable[ImageSource]"]


@dataclass(frozen=True)
class PredictedImage:
    """One image of a source, which is read when it is needed.

    Attributes:
        content: the image.
        name: for messages.
        label: short name for tables and the files of results: that of the file, or its path in
            the given folder.
        is_listed: whether the caller gave this image, and did not only give its folder.
    """

    content: ImageLike
    name: str
    label: str = "image.png"
    is_listed: bool = True

    @property
    def path(self) -> Path | None:
        """Path of an image file."""
        if isinstance(self.content, str | Path) and not _is_url(self.content):
            return Path(self.content)
        return None

    def read(self, pixel_range: PixelRange | None) -> np.ndarray:
        """Return the pixels: [H, W, 3] uint8 RGB.

        Raises:
            DatasetError: if the image cannot be downloaded or decoded.
            ConfigError: if an object is not an image.
        """
        content = self.content
        if isinstance(content, str) and _is_url(content):
            from rtdetrv2_pytorch.src.data.images.urls import download_image

            content = download_image(content, only_public=False)
        return to_rgb(content, pixel_range, name=self.name)


@dataclass(frozen=True)
class ImageSet:
    """The images of a source.

    Attributes:
        images: in order.
        count: number of images; None if it is not known.
        is_single: whether the source is one image, with one result.
        is_video: whether the images are the frames of a video.
    """

    images: Iterable[PredictedImage]
    count: int | None
    is_single: bool = False
    is_video: bool = False


def find_images(source: ImageSource) -> ImageSet:
    """Return the images of a source without reading them.

    Raises:
        DatasetError: if a path does not exist, a folder has no images, or a video is not readable.
    """
    if isinstance(source, str | Path):
        return _of_path(source)
    if isinstance(source, np.ndarray | Tensor) and source.ndim == 4:
        images = [PredictedImage(image, f"image {i}", f"{i}.png") for i, image in enumerate(source)]
        return ImageSet(images, len(images))
    if isinstance(source, Sequence) and not isinstance(source, bytes | bytearray | memoryview):
        parts = [find_images(each) for each in source]  # type: ignore[arg-type]
        counts = [part.count for part in parts]
        count = None if None in counts else sum(each or 0 for each in counts)
        return ImageSet(list(_chained(parts)), count)
    if isinstance(source, Iterator) and not hasattr(source, "read"):
        return ImageSet(_chained(find_images(each) for each in source), None)
    name = getattr(source, "filename", "") if isinstance(source, Image.Image) else "image"
    return ImageSet([PredictedImage(source, str(name or "image"))], 1, is_single=True)  # type: ignore[arg-type]


def _chained(parts: Iterable[ImageSet]) -> Iterator[PredictedImage]:
    return chain.from_iterable(part.images for part in parts)


def _of_path(source: str | Path) -> ImageSet:
    if isinstance(source, str) and _is_url(source):
        return ImageSet([PredictedImage(source, source, _name_in(source))], 1, is_single=True)
    path = Path(source).expanduser()
    if path.is_dir():
        return _of_folder(path)
    if not path.exists():
        raise DatasetError(
            f"{path}: no such file or folder; give an image, a video or a folder of images"
        )
    if is_video(path):
        return _of_video(path)
    return ImageSet([PredictedImage(path, str(path), path.name)], 1, is_single=True)


def _of_folder(folder: Path) -> ImageSet:
    found = []
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not is_hidden(Path(name))]
        paths = (Path(parent, name) for name in names)
        found += [
            PredictedImage(path, str(path), path.relative_to(folder).as_posix(), is_listed=False)
            for path in paths
            if is_image(path)
        ]
    if not found:
        raise DatasetError(
            f"{folder}: no images in this folder or its subfolders; give another one"
        )
    return ImageSet(sorted(found, key=lambda image: image.name), len(found))


def _of_video(path: Path) -> ImageSet:
    video = Video(path)
    frames = (
        PredictedImage(pixels, f"{path}, frame {i}") for i, pixels in enumerate(video.frames())
    )
    return ImageSet(frames, video.num_frames, is_video=True)


def _name_in(url: str) -> str:
    """Return the file name in a URL."""
    return Path(urlparse(url).path).name or "image.png"


def _is_url(source: str | Path) -> bool:
    return str(source).lower().startswith(("http://", "https://"))
