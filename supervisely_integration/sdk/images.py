"""Image files that the SDK reads."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import supervisely as sly

from rtdetrv2_pytorch.src.data.images.decoding import read_rgb
from rtdetrv2_pytorch.src.data.images.pixel_range import PixelRange


def read_images_like_the_trainer(pixel_range: Callable[[], PixelRange | None]) -> None:
    """Read the SDK's images with `read_rgb`; patches `sly.image.read` and `sly.image.read_bytes`.

    The functions of supervisely/imaging/image.py accept formats of any decoder and any number of
    pixels, and scale 16-bit images differently. The platform's client, the cache of the serving app
    and predictions of files use them. An alpha channel, which a detector ignores, is left out.

    Args:
        pixel_range: returns the range of the deployed model.
    """

    def read(path: str, *args: Any, **options: Any) -> np.ndarray:
        return read_rgb(Path(path), pixel_range=pixel_range())

    def read_bytes(image_bytes: bytes, *args: Any, **options: Any) -> np.ndarray:
        source = io.BytesIO(image_bytes)
        return read_rgb(source, pixel_range=pixel_range(), name="the image")

    sly.image.read, sly.image.read_bytes = read, read_bytes
