"""The interface of an augmentation, and those that change nothing."""

import random
from typing import Literal, Protocol, runtime_checkable

from .sample import Sample


@runtime_checkable
class Transform(Protocol):
    """Changes a sample in place and returns it."""

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Apply with the given randomness."""


class EmptyTransform:
    """Does nothing."""

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Return the sample as it is."""
        return sample


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
