"""Blur, noise and JPEG artifacts. Their strength is in pixels, so they belong after `Resize`."""

import io
import random
from statistics import NormalDist

import numpy as np
import torch
from PIL import Image, ImageFilter

from ...misc.ranges import Fraction
from .geometric import Range
from .sample import Sample
from .warping import from_pillow, to_pillow


class RandomBlur:
    """Average the pixels of a square, like a lens that is out of focus.

    Args:
        radius: range of half the side of the square in pixels; 0 keeps the image.
        p: probability.
    """

    def __init__(self, *, radius: Range = (0.5, 1.5), p: Fraction = 0.1) -> None:
        if not 0 <= radius[0] <= radius[1]:
            raise ValueError(f"radius {radius}: give (low, high) with 0 <= low <= high")
        self.radius = radius
        self.p = p

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Blur with probability `p`."""
        if rng.random() < self.p:
            radius = rng.uniform(*self.radius)
            sample.materialize()
            image = to_pillow(sample.image).filter(ImageFilter.BoxBlur(radius))
            sample.image = from_pillow(image)
        return sample


class RandomNoise:
    """Add Gaussian noise.

    Args:
        std: range of the standard deviation, in gray levels of 0..255.
        p: probability.
    """

    def __init__(self, *, std: Range = (2.0, 10.0), p: Fraction = 0.1) -> None:
        if not 0 < std[0] <= std[1]:
            raise ValueError(f"std {std}: give (low, high) with 0 < low <= high")
        self.std = std
        self.p = p

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Add noise with probability `p`."""
        if rng.random() < self.p:
            std = rng.uniform(*self.std)
            sample.materialize()
            # Random bytes choose one of 256 quantiles, which is faster than normal numbers.
            normal = NormalDist(sigma=std)
            levels = np.array([round(normal.inv_cdf((i + 0.5) / 256)) for i in range(256)])
            bits = np.random.default_rng(rng.getrandbits(64)).bytes(sample.image.numel())
            noise = levels.astype(np.int16)[np.frombuffer(bits, dtype=np.uint8)]
            pixels = sample.image.permute(1, 2, 0)  # the order in memory
            noisy = torch.from_numpy(noise).view(pixels.shape).add_(pixels).clamp_(0, 255)
            sample.image = noisy.to(torch.uint8).permute(2, 0, 1)
        return sample


class RandomJPEG:
    """Compress the image as JPEG, and decode it.

    Args:
        quality: range, 1 to 100.
        p: probability.
    """

    def __init__(self, *, quality: tuple[int, int] = (40, 90), p: Fraction = 0.1) -> None:
        if not 1 <= quality[0] <= quality[1] <= 100:
            raise ValueError(f"quality {quality}: give (low, high) with 1 <= low <= high <= 100")
        self.quality = quality
        self.p = p

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Compress with probability `p`."""
        if rng.random() < self.p:
            quality = rng.randint(*self.quality)
            sample.materialize()
            buffer = io.BytesIO()
            to_pillow(sample.image).save(buffer, "JPEG", quality=quality)
            sample.image = from_pillow(Image.open(buffer, formats=("JPEG",)))
        return sample
