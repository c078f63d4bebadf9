"""Scaling of pixels with more than 8 bits to 0..255, by one rule for a whole data set.

The rule never depends on the content of one image: equal objects look equal in all images.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...misc.errors import ConfigError

# (low, high): the pixel values that become 0 and 255. None: the rule of the data type, see
# `default_range`.
PixelRange = tuple[float, float]

MIN_LEVELS = 32  # fewer gray levels hide details
_ROUNDING = 1e-3  # of floats that a caller computed; clipped
_STRIP_VALUES = 4_000_000  # converted at once: copies of a large image take gigabytes


def default_range(dtype: np.dtype[Any]) -> PixelRange:
    """Return the range of images without a rule: 16 bits for integers, 0..1 for floats."""
    return (0.0, 1.0) if np.issubdtype(dtype, np.floating) else (0.0, 65535.0)


def checked_range(value: Sequence[float] | None) -> PixelRange | None:
    """Return a range as a pair of floats; None stays.

    Raises:
        ConfigError: if it is not two finite numbers in ascending order.
    """
    if value is None:
        return None
    try:
        low, high = (float(each) for each in value)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(
            f"pixel_range = {value!r}: give [low, high], the pixel values that become 0 and 255"
        )
    return low, high


def to_8_bit(values: np.ndarray, pixel_range: PixelRange | None) -> np.ndarray:
    """Scale an image to 0..255; values outside the range are clipped, NaN becomes 0.

    Args:
        values: [H, W, ...] integers or floats; uint8 is returned unchanged.
        pixel_range: of the data set.
    """
    if values.dtype == np.uint8:
        return values
    low, high = pixel_range or default_range(values.dtype)
    scaled = np.empty(values.shape, np.uint8)
    rows = max(1, _STRIP_VALUES // max(1, values[:1].size))
    for top in range(0, len(values), rows):
        part = values[top : top + rows].astype(np.float64)
        part = np.nan_to_num((part - low) * (255 / (high - low)))
        scaled[top : top + rows] = np.clip(np.rint(part), 0, 255)
    return scaled


def array_to_rgb(image: np.ndarray, pixel_range: PixelRange | None) -> np.ndarray:
    """Convert an array that a caller decoded itself.

    Args:
        image: [H, W] or [H, W, C] with 1, 3 or 4 channels; an alpha channel is left out. With a
            range, any numbers other than uint8 are scaled by it. Without a range: uint8, uint16,
            bool; floats from 0 to 1; other integers from 0 to 255.
        pixel_range: of the data set that the model was trained on.

    Returns:
        [H, W, 3] uint8; a view of the image if possible.

    Raises:
        ConfigError: if shape, data type or values are not supported.
    """
    shown = f"image of {image.dtype} {list(image.shape)}"
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        hint = "; transpose(1, 2, 0) moves the channels" if image.shape[:1] in ((1,), (3,)) else ""
        raise ConfigError(
            f"{shown}: not supported; give 1 channel, RGB or RGBA in the last axis{hint}"
        )
    if 0 in image.shape:
        raise ConfigError(f"{shown}: it has no pixels; give another image")
    image = image[..., :3]
    if image.dtype not in (np.uint8, np.uint16) and pixel_range is None:
        image = _without_range(image, shown)
    pixels = to_8_bit(image, pixel_range)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def _without_range(image: np.ndarray, shown: str) -> np.ndarray:
    """Convert pixels of an uncommon type to uint8; their values never decide the scale."""
    if image.dtype == np.bool_:
        return image.astype(np.uint8) * np.uint8(255)
    if image.dtype.kind not in "iuf":
        raise ConfigError(f"{shown}: give numbers, for example uint8 from 0 to 255")
    low, high = image.min(), image.max()
    is_float = image.dtype.kind == "f"
    least, most = (-_ROUNDING, 1 + _ROUNDING) if is_float else (0, 255)
    if not (low >= least and high <= most):  # or NaN
        raise ConfigError(
            f"{shown} with values from {low:g} to {high:g}: give floats from 0 to 1 without "
            "normalization, uint8 from 0 to 255, or integers with 16 bits as uint16"
        )
    return to_8_bit(image, None) if is_float else image.astype(np.uint8)
