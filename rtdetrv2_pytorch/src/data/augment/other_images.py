"""Loading of other images of the data set, for Mosaic, MixUp and CopyPaste."""

import random
from typing import Protocol

import numpy as np

from .sample import Sample


class SampleSource(Protocol):
    """The data set from which augmentations load images."""

    def __len__(self) -> int: ...

    def load_readable(self, index: int) -> tuple[int, Sample]:
        """Load an image (the next readable one) and its boxes, without augmentation."""

    def images_by_class(self) -> list[tuple[int, np.ndarray]]:
        """Return each label with objects, and the images with objects of it, without crowds."""


class UsesOtherImages:
    """An augmentation that uses other images of the data set."""

    _source: SampleSource | None = None
    _by_class: list[tuple[int, np.ndarray]] | None = None

    def bind(self, source: SampleSource) -> None:
        """Set the data set of the other images."""
        self._source, self._by_class = source, None

    def other_image(self, rng: random.Random) -> Sample:
        """Load a random image of the data set.

        Raises:
            ValueError: without a data set.
        """
        source = self._data()
        return source.load_readable(rng.randrange(len(source)))[1]

    def image_of_any_class(self, rng: random.Random) -> tuple[Sample, int] | None:
        """Load an image with an object of a class that is chosen first, all equally often.

        Returns:
            The image and the label, or None if the data set has no objects.

        Raises:
            ValueError: without a data set.
        """
        source = self._data()
        if self._by_class is None:  # once, in the process that loads images
            self._by_class = source.images_by_class()
        if not self._by_class:
            return None
        label, images = rng.choice(self._by_class)
        return source.load_readable(int(images[rng.randrange(len(images))]))[1], label

    def _data(self) -> SampleSource:
        if self._source is None:
            raise ValueError(f"{type(self).__name__} needs a data set: use it inside Compose")
        return self._source
