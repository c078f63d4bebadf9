"""Loading of other images of the data set, for Mosaic, MixUp and CopyPaste."""

import random
from typing import Protocol

from .sample import Sample


class SampleSource(Protocol):
    """The data set from which augmentations load images."""

    def __len__(self) -> int: ...

    def load_readable(self, index: int) -> tuple[int, Sample]:
        """Load an image (the next readable one) and its boxes, without augmentation."""


class UsesOtherImages:
    """An augmentation that uses other images of the data set."""

    _source: SampleSource | None = None

    def bind(self, source: SampleSource) -> None:
        """Set the data set of the other images."""
        self._source = source

    def other_image(self, rng: random.Random) -> Sample:
        """Load a random image of the data set.

        Raises:
            ValueError: without a data set.
        """
        if self._source is None:
            raise ValueError(f"{type(self).__name__} needs a data set: use it inside Compose")
        return self._source.load_readable(rng.randrange(len(self._source)))[1]
