"""Zoom, flips, turns, affine maps, resize and padding, named as in torchvision.transforms.v2."""

import random
from collections.abc import Sequence
from typing import Literal

from ...misc.ranges import Fraction, NonNegativeFloat
from ..images.resizing import Interpolation
from .sample import Sample
from .warping import rotation, shear, shift, stretch

Range = tuple[float, float]
SizeHW = int | tuple[int, int]


def as_hw(size: SizeHW | Sequence[int]) -> tuple[int, int]:
    """Return (height, width) of a size given as one or two numbers."""
    if isinstance(size, int):
        return size, size
    height, width = size if len(size) == 2 else (*size, *size)
    return height, width


class RandomZoomOut:
    """Place the image at a random position of a larger canvas.

    Args:
        fill: pixel value of the canvas.
        side_range: range of the canvas sides relative to the image sides.
        p: probability.
    """

    def __init__(self, *, fill: int = 0, side_range: Range = (1.0, 4.0), p: Fraction = 0.5) -> None:
        if side_range[0] < 1 or side_range[0] > side_range[1]:
            raise ValueError(f"side_range {side_range}: give (low, high) with 1 <= low <= high")
        self.fill = fill
        self.side_range = side_range
        self.p = p

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Enlarge the canvas."""
        if rng.random() >= self.p:
            return sample
        height, width = sample.canvas_hw
        ratio = rng.uniform(*self.side_range)
        canvas_height, canvas_width = int(height * ratio), int(width * ratio)
        left = int((canvas_width - width) * rng.random())
        top = int((canvas_height - height) * rng.random())
        sample.set_window(-left, -top, canvas_width, canvas_height, fill=self.fill)
        return sample


class RandomHorizontalFlip:
    """Flip left to right.

    Args:
        p: probability.
    """

    def __init__(self, *, p: Fraction = 0.5) -> None:
        self.p = p

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Flip with probability `p`."""
        if rng.random() < self.p:
            sample.flip()
        return sample


class RandomVerticalFlip:
    """Flip top to bottom.

    Args:
        p: probability.
    """

    def __init__(self, *, p: Fraction = 0.5) -> None:
        self.p = p

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Flip with probability `p`."""
        if rng.random() < self.p:
            sample.flip_vertically()
        return sample


class RandomQuarterTurn:
    """Turn by 90, 180 or 270 degrees, each with the same probability. Pixels are not interpolated.

    Args:
        p: probability of turning.
    """

    def __init__(self, *, p: Fraction = 0.75) -> None:
        self.p = p

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Turn with probability `p`."""
        if rng.random() < self.p:
            sample.turn(rng.randint(1, 3))
        return sample


class RandomAffine:
    """Rotate, shear, scale and move the content of the canvas, which keeps its size.

    A box becomes the smallest box with the corners of the moved box, clipped to the canvas. Boxes
    whose center leaves the canvas are dropped. Boxes of rotated objects become looser, so keep the
    angles small; `RandomQuarterTurn` is exact.

    Args:
        degrees: maximum rotation to either side.
        translate: maximum shift to either side, as fractions of width and height.
        scale: range of the factor.
        shear: maximum angle to either side, in degrees.
        fill: pixel value of empty canvas.
        p: probability.
    """

    def __init__(
        self,
        *,
        degrees: NonNegativeFloat = 5.0,
        translate: tuple[Fraction, Fraction] = (0.0, 0.0),
        scale: Range = (1.0, 1.0),
        shear: NonNegativeFloat = 0.0,
        fill: int = 0,
        p: Fraction = 0.5,
    ) -> None:
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale {scale}: give (low, high) with 0 < low <= high")
        if shear >= 90:
            raise ValueError(f"shear {shear}: give less than 90 degrees")
        self.degrees = degrees
        self.translate = translate
        self.scale = scale
        self.shear = shear
        self.fill = fill
        self.p = p

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Change the canvas with probability `p`."""
        if rng.random() >= self.p:
            return sample
        height, width = sample.canvas_hw
        angle = rng.uniform(-self.degrees, self.degrees)
        factor = rng.uniform(*self.scale)
        slant = rng.uniform(-self.shear, self.shear)
        x, y = (rng.uniform(-limit, limit) for limit in self.translate)
        sample.warp(
            shift(width * (0.5 + x), height * (0.5 + y))
            @ rotation(angle)
            @ shear(slant)
            @ stretch(factor, factor)
            @ shift(-width / 2, -height / 2),
            fill=self.fill,
        )
        sample.keep(sample.centers_inside())
        sample.clip_boxes()
        return sample


class Resize:
    """Resize the canvas, which computes the pixels.

    Args:
        size: (height, width); one number is the shorter side and keeps the aspect ratio.
        interpolation: of the pixels.
        max_size: maximum of the longer side if `size` is one number.
        antialias: apply an antialiasing filter when downscaling.
    """

    def __init__(
        self,
        *,
        size: int | list[int],
        interpolation: Interpolation = "bilinear",
        max_size: int | None = None,
        antialias: bool = True,
    ) -> None:
        self.size = size
        self.mode = interpolation
        self.max_size = max_size
        self.antialias = antialias

    def target_hw(self, canvas_hw: tuple[int, int]) -> tuple[int, int]:
        """Return (height, width) of the result."""
        if not isinstance(self.size, int) and len(self.size) == 2:
            return self.size[0], self.size[1]
        short = self.size if isinstance(self.size, int) else self.size[0]
        long = short * max(canvas_hw) // min(canvas_hw)
        if self.max_size is not None and long > self.max_size:
            short, long = max(1, self.max_size * short // long), self.max_size
        return (short, long) if canvas_hw[0] <= canvas_hw[1] else (long, short)

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Compute the pixels at the new size."""
        size_hw = self.target_hw(sample.canvas_hw)
        sample.materialize(size_hw, mode=self.mode, antialias=self.antialias)
        return sample


class PadToSize:
    """Pad the canvas on the right and at the bottom.

    Args:
        size: (height, width) of the result, or one number for both.
        fill: pixel value of the padding.
        padding_mode: only "constant" is supported.
    """

    def __init__(
        self,
        *,
        size: SizeHW,
        fill: int = 0,
        padding_mode: Literal["constant"] = "constant",
    ) -> None:
        self.size_hw = as_hw(size)
        self.fill = fill

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Pad sides that are smaller than `size`."""
        height = max(sample.canvas_hw[0], self.size_hw[0])
        width = max(sample.canvas_hw[1], self.size_hw[1])
        sample.set_window(0, 0, width, height, fill=self.fill)
        return sample
