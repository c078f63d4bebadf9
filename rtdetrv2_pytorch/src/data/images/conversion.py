"""Images in the forms that Python code has them in, as RGB pixels."""

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...misc.errors import ConfigError
from .decoding import read_rgb, upright_rgb
from .opening import ImageFileError
from .pixel_range import PixelRange, array_to_rgb

ImageLike = str | Path | bytes | BinaryIO | Image.Image | np.ndarray | Tensor

_CHANNELS = (1, 3, 4)


def to_rgb(
    image: ImageLike, pixel_range: PixelRange | None = None, *, name: str | None = None
) -> np.ndarray:
    """Convert an image of any kind to [H, W, 3] uint8 RGB.

    Args:
        image: path, bytes or binary file of an image file; PIL image; [H, W] or [H, W, C] array,
            see `array_to_rgb`; tensor of the same values as [C, H, W], [H, W, C] or [H, W]. Colors
            are in the order RGB, an alpha channel is left out, and EXIF orientations are applied.
        pixel_range: of the data set that the model was trained on.
        name: of the image in errors.

    Raises:
        ImageFileError: if a file cannot be decoded.
        ConfigError: if an array or object is not supported.
    """
    if isinstance(image, np.ndarray):
        return array_to_rgb(image, pixel_range)
    if isinstance(image, Tensor):
        return array_to_rgb(_channels_last(image), pixel_range)
    if isinstance(image, Image.Image):
        name = name or getattr(image, "filename", "") or "image"
        try:
            return upright_rgb(image, pixel_range=pixel_range)
        except (OSError, ValueError, SyntaxError) as error:  # decoded only now
            raise ImageFileError(name, str(error), "unreadable_image") from error
    if isinstance(image, str | Path):
        return read_rgb(image, pixel_range=pixel_range, name=name)
    if isinstance(image, bytes | bytearray | memoryview):
        return read_rgb(io.BytesIO(image), pixel_range=pixel_range, name=name or "image")
    if hasattr(image, "read"):
        if image.seekable():
            image.seek(0)  # as PIL does
        content = image.read()
        if isinstance(content, bytes):
            name = name or str(getattr(image, "name", "image"))
            return read_rgb(io.BytesIO(content), pixel_range=pixel_range, name=name)
        raise ConfigError(f"{image!r}: a text file; open it in binary mode ('rb')")
    raise ConfigError(
        f"image of type {type(image).__name__}: give a path, bytes, a PIL image, an array or a "
        "tensor"
    )


def _channels_last(image: Tensor) -> np.ndarray:
    """Return a tensor as an array with the channels in the last axis, as torch has them first."""
    if image.ndim == 3 and image.shape[0] in _CHANNELS:
        image = image.permute(1, 2, 0)
    image = image.detach().cpu()
    return (image.float() if image.dtype in (torch.float16, torch.bfloat16) else image).numpy()
