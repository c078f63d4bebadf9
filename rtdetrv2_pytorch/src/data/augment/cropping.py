"""Random crops, with the semantics of torchvision.transforms.v2."""

import random
from typing import Literal

import numpy as np

from ...misc.ranges import Fraction
from .geometric import SizeHW, as_hw
from .sample import Sample


class RandomIoUCrop:
    """Crop so that at least one box has a randomly chosen IoU with the crop.

    Boxes whose center is outside the crop are dropped, the others are clipped.

    Args:
        min_scale: smallest side of the crop relative to the image.
        max_scale: largest side of the crop relative to the image.
        min_aspect_ratio: of the crop, width / height.
        max_aspect_ratio: of the crop, width / height.
        sampler_options: minimum IoUs to choose from; 1 or more keeps the whole image.
        trials: attempts before another IoU is chosen.
        p: probability of cropping.

    Source: SSD, arXiv:1512.02325.
    """

    def __init__(
        self,
        *,
        min_scale: float = 0.3,
        max_scale: float = 1.0,
        min_aspect_ratio: float = 0.5,
        max_aspect_ratio: float = 2.0,
        sampler_options: list[float] | None = None,
        trials: int = 40,
        p: Fraction = 1.0,
    ) -> None:
        self.scale = (min_scale, max_scale)
        self.aspect_ratio = (min_aspect_ratio, max_aspect_ratio)
        self.options = sampler_options or [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0]
        self.trials = trials
        self.p = p

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Crop with probability `p` if a crop with enough overlap is found."""
        if rng.random() >= self.p or not len(sample.boxes):
            return sample
        for _ in range(100):  # a bound, because some options can never be fulfilled
            min_iou = rng.choice(self.options)
            if min_iou >= 1:
                return sample
            for _ in range(self.trials):
                window = self._sample_window(sample.canvas_hw, rng)
                if window is None:
                    continue
                inside = self._centers_inside(sample.boxes, window, min_iou)
                if inside is not None:
                    left, top, right, bottom = window
                    sample.keep(inside)
                    sample.set_window(left, top, right - left, bottom - top)
                    sample.clip_boxes()
                    return sample
        return sample

    def _sample_window(
        self, canvas_hw: tuple[int, int], rng: random.Random
    ) -> tuple[int, int, int, int] | None:
        """Return a random crop (x1, y1, x2, y2), or None if its aspect ratio is not allowed."""
        height, width = canvas_hw
        new_width = int(width * rng.uniform(*self.scale))
        new_height = int(height * rng.uniform(*self.scale))
        if not new_width or not new_height:
            return None
        if not self.aspect_ratio[0] <= new_width / new_height <= self.aspect_ratio[1]:
            return None
        left = int((width - new_width) * rng.random())
        top = int((height - new_height) * rng.random())
        return left, top, left + new_width, top + new_height

    @staticmethod
    def _centers_inside(
        boxes: np.ndarray, window: tuple[int, int, int, int], min_iou: float
    ) -> np.ndarray | None:
        """Return a [N] mask of boxes centered in the window; None if no IoU is high enough."""
        left, top, right, bottom = window
        cx, cy = (boxes[:, 0] + boxes[:, 2]) * 0.5, (boxes[:, 1] + boxes[:, 3]) * 0.5
        inside = (left < cx) & (cx < right) & (top < cy) & (cy < bottom)
        if not inside.any():
            return None
        x1, y1, x2, y2 = boxes[inside].T
        common = (np.minimum(x2, right) - np.maximum(x1, left)) * (
            np.minimum(y2, bottom) - np.maximum(y1, top)
        )
        union = (x2 - x1) * (y2 - y1) + (right - left) * (bottom - top) - common
        return inside if (common / union).max() >= min_iou else None


class RandomCrop:
    """Crop a window of fixed size at a random position and clip the boxes.

    Args:
        size: (height, width), or one number for both.
        padding: pixels added first on all sides, or on (left/right, top/bottom).
        pad_if_needed: pad a canvas that is smaller than the crop.
        fill: pixel value of the padding.
        padding_mode: only "constant" is supported.
    """

    def __init__(
        self,
        *,
        size: SizeHW,
        padding: int | tuple[int, int] | None = None,
        pad_if_needed: bool = False,
        fill: int = 0,
        padding_mode: Literal["constant"] = "constant",
    ) -> None:
        self.size_hw = as_hw(size)
        self.padding = (padding, padding) if isinstance(padding, int) else padding
        self.pad_if_needed = pad_if_needed
        self.fill = fill

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Crop the canvas."""
        if self.padding is not None:
            (pad_x, pad_y), (height, width) = self.padding, sample.canvas_hw
            padded = (width + 2 * pad_x, height + 2 * pad_y)
            sample.set_window(-pad_x, -pad_y, *padded, fill=self.fill)
        (height, width), (new_height, new_width) = sample.canvas_hw, self.size_hw
        if not self.pad_if_needed:
            new_height, new_width = min(new_height, height), min(new_width, width)
        left = _random_offset(width - new_width, rng)
        top = _random_offset(height - new_height, rng)
        sample.set_window(left, top, new_width, new_height, fill=self.fill)
        sample.clip_boxes()
        box_size = sample.boxes[:, 2:] - sample.boxes[:, :2]
        sample.keep((box_size > 0).all(axis=1))
        return sample


def _random_offset(slack: int, rng: random.Random) -> int:
    """Return a random offset; with negative slack the window is larger and covers the canvas."""
    return rng.randint(min(slack, 0), max(slack, 0))
