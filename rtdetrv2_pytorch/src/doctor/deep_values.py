"""Pixel values of images with more than 8 bits, and the range that a data set needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.images.pixel_range import PixelRange, default_range, to_8_bit

_MAX_SAMPLES = 1_000_000  # pixels examined per image
_MAX_DISTINCT = 64  # kept per image
_PERCENTILES = (0.1, 99.9)  # of the pixels of an image
_OUTLIERS = (0.01, 0.99)  # quantiles over the images
_MIN_SHARE = 0.25  # of a range that the values cover, so that 64 of 256 levels are used
_BIT_DEPTHS = (8, 10, 12, 14, 16)


@dataclass(frozen=True)
class DeepValues:
    """Pixel values of one image."""

    is_float: bool
    low: float  # 0.1 percentile
    high: float  # 99.9 percentile
    distinct: tuple[float, ...]  # ascending, from the lowest to the highest; at most 64

    @classmethod
    def of(cls, values: np.ndarray) -> "DeepValues":
        """Summarize an image, [H, W] integers or floats; NaN and infinity are ignored."""
        flat = values.reshape(-1)
        sample = flat[:: max(1, flat.size // _MAX_SAMPLES)]
        distinct = np.unique(sample[np.isfinite(sample)])
        is_float = bool(np.issubdtype(values.dtype, np.floating))
        if distinct.size == 0:
            return cls(is_float, 0.0, 0.0, (0.0,))
        low, high = np.percentile(sample[np.isfinite(sample)], _PERCENTILES)
        places = np.linspace(0, distinct.size - 1, min(distinct.size, _MAX_DISTINCT)).astype(int)
        return cls(is_float, float(low), float(high), tuple(map(float, distinct[places])))

    @classmethod
    def from_list(cls, fields: Sequence[Any]) -> "DeepValues":
        """Return what `astuple` turned into JSON."""
        is_float, low, high, distinct = fields
        return cls(bool(is_float), float(low), float(high), tuple(map(float, distinct)))

    @property
    def default_range(self) -> PixelRange:
        """Range of this data type."""
        return default_range(np.dtype(np.float32 if self.is_float else np.uint16))

    @property
    def own_range(self) -> PixelRange | None:
        """Range of this image alone, to compare the appearance of images."""
        return (self.low, self.high) if self.low < self.high else None

    def levels(self, pixel_range: PixelRange | None) -> int:
        """Return the number of gray levels after scaling, exact up to 64 pixel values."""
        values = np.array([self.distinct])
        return len(np.unique(to_8_bit(values, pixel_range or self.default_range)))


def choose_range(images: Sequence[DeepValues]) -> PixelRange | None:
    """Return the range for the images of a training split; None if the data types' ranges fit.

    A range fits if the values cover a quarter of it and do not exceed it. Otherwise the smallest
    bit depth that fits is chosen, or else the 0.1 to 99.9 percentile of the pixels, without the
    lowest and highest percent of images.
    """
    if not images:
        return None
    if all(
        _fits([image for image in images if image.is_float == is_float], top)
        for is_float, top in ((False, 65535), (True, 1))
    ):
        return None
    for bits in _BIT_DEPTHS:
        if _fits(images, 2**bits - 1):
            return 0.0, 2.0**bits - 1
    low, high = _ends(images)
    return (low, high) if low < high else None


def _fits(images: Sequence[DeepValues], top: float) -> bool:
    """Return whether the values lie in 0..top and cover a quarter of it."""
    if not images:
        return True
    low, high = _ends(images)
    return (
        min(image.distinct[0] for image in images) >= 0
        and max(image.distinct[-1] for image in images) <= top
        and high - low >= _MIN_SHARE * top
    )


def _ends(images: Sequence[DeepValues]) -> PixelRange:
    low = np.quantile([image.low for image in images], _OUTLIERS[0])
    high = np.quantile([image.high for image in images], _OUTLIERS[1])
    return float(f"{low:.6g}"), float(f"{high:.6g}")
