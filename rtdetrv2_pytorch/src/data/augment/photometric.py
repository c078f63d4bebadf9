"""Augmentations of pixel values."""

import random

import torch

from ...misc.ranges import Fraction
from .color import PhotometricChange, gray
from .sample import Sample

Range = tuple[float, float]


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
        p: Fraction = 0.5,
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
