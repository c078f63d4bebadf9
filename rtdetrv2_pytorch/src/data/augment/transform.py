"""The interface of an augmentation, and augmentations that change nothing."""

import random
from typing import Literal, Protocol, runtime_checkable

from .sample import Sample


@runtime_checkable
class Transform(Protocol):
    """Changes a sample in place and returns it; random numbers come from `rng` only."""

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Apply the augmentation."""


class EmptyTransform:
    """Does nothing."""

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Return the sample as it is."""
        return sample


class ConvertPILImage:
    """Validates the type of images; the conversion itself happens in the model.

    Images are uint8 until the model scales them to 0..1 on its device, so workers send a quarter
    of the bytes.

    Args:
        dtype: type of the model's input.
        scale: whether values are scaled to 0..1.
    """

    def __init__(
        self, *, dtype: Literal["float32"] = "float32", scale: Literal[True] = True
    ) -> None:
        self.dtype = dtype
        self.scale = scale

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Return the sample as it is."""
        return sample
