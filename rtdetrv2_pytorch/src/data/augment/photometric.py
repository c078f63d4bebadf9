"""Color distortion and normalization."""

import random

import torch

from ...misc.ranges import Fraction
from .color import PhotometricChange, gray
from .geometric import Range
from .sample import Sample


class RandomPhotometricDistort:
    """Change brightness, contrast, saturation, hue and channel order, each with probability p.

    Args:
        brightness: range of the factor.
        contrast: range of the factor.
        saturation: range of the factor.
        hue: range of the shift, as a fraction of the color circle; (0, 0) keeps the hue.
        p: probability of each change.
        permute: whether to change the channel order.

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
        permute: bool = True,
    ) -> None:
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue
        self.p = p
        self.permute = permute

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Record the change; `Resize` computes the pixels."""

        def factor(bounds: Range, neutral: float = 1.0) -> float | None:
            if bounds == (neutral, neutral):
                return None
            return rng.uniform(*bounds) if rng.random() < self.p else None

        brightness, contrast = factor(self.brightness), factor(self.contrast)
        saturation, hue = factor(self.saturation), factor(self.hue, neutral=0.0)
        contrast_first = rng.random() < 0.5
        is_permuted = self.permute and rng.random() < self.p
        permutation = tuple(rng.sample(range(3), 3)) if is_permuted else None
        mean = 0.0
        if contrast is not None:
            # 1/16 of the pixels estimate the mean to well below one gray level.
            mean = float(gray(sample.image[:, ::4, ::4]).mean())
        sample.add_pixel_op(
            PhotometricChange(
                brightness, contrast, contrast_first, mean, saturation, hue, permutation
            )
        )
        return sample


class RandomGrayscale:
    """Remove the colors.

    Args:
        p: probability.
    """

    def __init__(self, *, p: Fraction = 0.1) -> None:
        self.p = p

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Record the change with probability `p`; `Resize` computes the pixels."""
        if rng.random() < self.p:
            sample.add_pixel_op(PhotometricChange(saturation=0.0))
        return sample


class Normalize:
    """Subtract the mean and divide by the standard deviation of each channel, on a 0..1 scale.

    Published RT-DETR models do not use it.

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
        """Normalize the pixels, which become float32."""
        sample.materialize()
        sample.image = (sample.image.float() / 255 - self.mean) / self.std
        return sample
