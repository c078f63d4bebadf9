"""Augmentations by the names that YAML files use, with torchvision v2's semantics.

Each takes a `Sample` and a random generator of its own: nothing is drawn from global state.
"""

import random
from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torchvision.transforms import InterpolationMode

from .colour import PhotometricChange, gray
from .sample import Sample

Range = tuple[float, float]
SizeHW = int | tuple[int, int]


@runtime_checkable
class Transform(Protocol):
    """Changes a sample in place and returns it."""

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Apply with the given randomness."""


def as_hw(size: SizeHW | Sequence[int]) -> tuple[int, int]:
    """(height, width) of a size given as one number or two."""
    if isinstance(size, int):
        return size, size
    height, width = size if len(size) == 2 else (*size, *size)
    return height, width


class EmptyTransform:
    """Does nothing."""

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Return the sample as it is."""
        return sample


class RandomPhotometricDistort:
    """Change brightness, contrast, saturation, hue and channel order, each with probability p.

    Args:
        brightness: range of the factor.
        contrast: range of the factor.
        saturation: range of the factor.
        hue: range of the turn, in turns.
        p: probability of each change.

    Source: SSD, arXiv:1512.02325.
    """

    def __init__(
        self,
        *,
        brightness: Range = (0.875, 1.125),
        contrast: Range = (0.5, 1.5),
        saturation: Range = (0.5, 1.5),
        hue: Range = (-0.05, 0.05),
        p: float = 0.5,
    ) -> None:
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue
        self.p = p

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Note the change; pixels are computed later."""

        def draw(bounds: Range) -> float | None:
            return rng.uniform(*bounds) if rng.random() < self.p else None

        brightness, contrast = draw(self.brightness), draw(self.contrast)
        saturation, hue = draw(self.saturation), draw(self.hue)
        contrast_first = rng.random() < 0.5
        permutation = tuple(rng.sample(range(3), 3)) if rng.random() < self.p else None
        mean = 0.0
        if contrast is not None:
            # A sixteenth of the pixels give the mean to well under one gray level.
            mean = float(gray(sample.image[:, ::4, ::4]).mean())
        sample.add_pixel_op(
            PhotometricChange(
                brightness, contrast, contrast_first, mean, saturation, hue, permutation
            )
        )
        return sample


class RandomZoomOut:
    """Put the image somewhere on a larger, filled canvas.

    Args:
        fill: value of the canvas.
        side_range: range of the canvas sides, in image sides.
        p: probability.
    """

    def __init__(self, *, fill: int = 0, side_range: Range = (1.0, 4.0), p: float = 0.5) -> None:
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


class RandomIoUCrop:
    """Crop so that at least one box overlaps the crop by a randomly chosen IoU.

    Boxes whose centre is outside the crop are dropped, the others cut off at it.

    Args:
        min_scale: smallest side of the crop, in image sides.
        max_scale: largest side of the crop, in image sides.
        min_aspect_ratio: of the crop, width to height.
        max_aspect_ratio: of the crop, width to height.
        sampler_options: IoUs to choose from; 1 or more leaves the image as it is.
        trials: attempts before another IoU is chosen.
        p: probability of trying at all.

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
        p: float = 1.0,
    ) -> None:
        self.scale = (min_scale, max_scale)
        self.aspect_ratio = (min_aspect_ratio, max_aspect_ratio)
        self.options = sampler_options or [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0]
        self.trials = trials
        self.p = p

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Crop, or leave the sample alone."""
        if rng.random() >= self.p or not len(sample.boxes):
            return sample
        for _ in range(100):  # options that never fit must not hang a worker
            min_iou = rng.choice(self.options)
            if min_iou >= 1:
                return sample
            for _ in range(self.trials):
                window = self._draw_window(sample.canvas_hw, rng)
                if window is None:
                    continue
                inside = self._centres_inside(sample.boxes, window, min_iou)
                if inside is not None:
                    left, top, right, bottom = window
                    sample.keep(inside)
                    sample.set_window(left, top, right - left, bottom - top)
                    sample.clip_boxes()
                    return sample
        return sample

    def _draw_window(
        self, canvas_hw: tuple[int, int], rng: random.Random
    ) -> tuple[int, int, int, int] | None:
        """Draw a crop (x1, y1, x2, y2), or None if its shape is not allowed."""
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
    def _centres_inside(
        boxes: np.ndarray, window: tuple[int, int, int, int], min_iou: float
    ) -> np.ndarray | None:
        """[N] mask of boxes centred in the window; None if none of them overlaps it enough."""
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


class SanitizeBoundingBoxes:
    """Drop boxes that are too small or leave the canvas, with all that belongs to them.

    Args:
        min_size: smallest side in pixels.
        min_area: smallest area in square pixels.
        labels_getter: kept for existing YAML files.
    """

    def __init__(
        self,
        *,
        min_size: float = 1.0,
        min_area: float = 1.0,
        labels_getter: Literal["default"] | None = "default",
    ) -> None:
        self.min_size = min_size
        self.min_area = min_area

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Filter the boxes."""
        height, width = sample.canvas_hw
        x1, y1, x2, y2 = sample.boxes.T
        box_width, box_height = x2 - x1, y2 - y1
        sample.keep(
            (box_width >= self.min_size)
            & (box_height >= self.min_size)
            & (box_width * box_height >= self.min_area)
            & (x1 >= 0)
            & (y1 >= 0)
            & (x2 <= width)
            & (y2 <= height)
        )
        return sample


class RandomHorizontalFlip:
    """Mirror left to right.

    Args:
        p: probability.
    """

    def __init__(self, *, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Flip, or not."""
        if rng.random() < self.p:
            sample.flip()
        return sample


class Resize:
    """Resize the canvas; this is where the pixels are computed.

    Args:
        size: (height, width); one number is the shorter side, which keeps the shape.
        interpolation: how pixels are computed.
        max_size: upper bound of the longer side, with one number as size.
        antialias: average when shrinking.
    """

    def __init__(
        self,
        *,
        size: int | list[int],
        interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear",
        max_size: int | None = None,
        antialias: bool = True,
    ) -> None:
        self.size = size
        self.mode = InterpolationMode(interpolation)
        self.max_size = max_size
        self.antialias = antialias

    def target_hw(self, canvas_hw: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the result."""
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
    """Enlarge the canvas to the right and below.

    Args:
        size: (height, width) of the result, or one number for both.
        fill: value of the new part.
        padding_mode: only constant values are supported.
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
        """Pad where the canvas is smaller."""
        height = max(sample.canvas_hw[0], self.size_hw[0])
        width = max(sample.canvas_hw[1], self.size_hw[1])
        sample.set_window(0, 0, width, height, fill=self.fill)
        return sample


class RandomCrop:
    """Crop a window of fixed size at a random place; boxes are cut off at it.

    Args:
        size: (height, width), or one number for both.
        padding: pixels to add first on all sides, or on left/right and top/bottom.
        pad_if_needed: enlarge a canvas that is smaller than the crop.
        fill: value of added pixels.
        padding_mode: only constant values are supported.
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
    """A place for a window with so much room; a larger window (slack below 0) covers all."""
    return rng.randint(min(slack, 0), max(slack, 0))


class ConvertPILImage:
    """Turn the image into a tensor of the given type.

    Images here are uint8 tensors from the start, and scaling to 0..1 is left to the model, on its
    device: a quarter of the bytes go through the workers' queues. What remains is the check.

    Args:
        dtype: type that the model sees.
        scale: whether values become 0..1.
    """

    def __init__(
        self, *, dtype: Literal["float32"] = "float32", scale: Literal[True] = True
    ) -> None:
        self.dtype = dtype
        self.scale = scale

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Return the sample as it is."""
        return sample


class Normalize:
    """Subtract a mean and divide by a deviation, per channel of the image scaled to 0..1.

    No published RT-DETR model uses it.

    Args:
        mean: of red, green, blue.
        std: of red, green, blue.
        inplace: kept for existing YAML files.
    """

    def __init__(
        self,
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        inplace: bool = False,
    ) -> None:
        self.mean = torch.tensor(mean)[:, None, None]
        self.std = torch.tensor(std)[:, None, None]

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Compute the pixels as float32."""
        sample.materialize()
        sample.image = (sample.image.float() / 255 - self.mean) / self.std
        return sample


class Mosaic:
    """Tile the image with three others of the data set and crop a window of the result.

    Args:
        size: shorter side that every image is resized to first.
        max_size: upper bound of its longer side, and the side of the crop (default: `size`).
    """

    def __init__(self, *, size: int, max_size: int | None = None) -> None:
        self.resize = Resize(size=size, max_size=max_size)
        self.crop = RandomCrop(size=max_size or size)
        self._others: SampleSource | None = None

    def bind(self, source: "SampleSource") -> None:
        """Tell where the other images come from."""
        self._others = source

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Build the mosaic."""
        if self._others is None:
            raise ValueError("Mosaic needs a data set: use it inside Compose")
        picks = [rng.randrange(len(self._others)) for _ in range(3)]
        tiles = [sample, *(self._others.load_readable(i)[1] for i in picks)]
        for tile in tiles:
            self.resize(tile, rng)
        height = max(t.canvas_hw[0] for t in tiles)
        width = max(t.canvas_hw[1] for t in tiles)
        image = tiles[0].image.new_zeros(3, 2 * height, 2 * width)
        for tile, (y, x) in zip(
            tiles, ((0, 0), (0, width), (height, 0), (height, width)), strict=True
        ):
            tile_height, tile_width = tile.canvas_hw
            image[:, y : y + tile_height, x : x + tile_width] = tile.image
            tile.boxes = tile.boxes + (x, y, x, y)
        mosaic = Sample(
            image=image,
            boxes=np.concatenate([t.boxes for t in tiles]),
            labels=np.concatenate([t.labels for t in tiles]),
            area=np.concatenate([t.area for t in tiles]),
        )
        return self.crop(mosaic, rng)


class SampleSource(Protocol):
    """A data set as `Mosaic` sees it."""

    def __len__(self) -> int: ...

    def load_readable(self, index: int) -> tuple[int, Sample]:
        """Read an image and its boxes, without augmentation; if need be, the next one."""


class ConvertBoxes:
    """Change format and unit of the boxes; the last step of a training pipeline.

    Args:
        fmt: "cxcywh", or "xyxy" (or "", for no change).
        normalize: divide by the canvas size.
    """

    def __init__(self, *, fmt: Literal["cxcywh", "xyxy", ""] = "", normalize: bool = False) -> None:
        self.fmt = fmt
        self.normalize = normalize

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Convert the boxes."""
        height, width = sample.canvas_hw
        boxes = sample.boxes
        if self.fmt == "cxcywh":
            boxes = np.concatenate(
                ((boxes[:, :2] + boxes[:, 2:]) * 0.5, boxes[:, 2:] - boxes[:, :2]), axis=1
            )
        if self.normalize:
            boxes = boxes / (width, height, width, height)
        sample.boxes = boxes
        return sample
