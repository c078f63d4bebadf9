"""The mosaic augmentation."""

import random
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ...misc.ranges import Fraction
from .cropping import RandomCrop
from .geometric import Resize
from .sample import Sample


class SampleSource(Protocol):
    """The data set from which `Mosaic` loads images."""

    def __len__(self) -> int: ...

    def load_readable(self, index: int) -> tuple[int, Sample]:
        """Load an image (the next readable one) and its boxes, without augmentation."""


class Mosaic:
    """Combine the image with three others in a 2x2 grid and crop a window.

    Args:
        size: shorter side to which every image is resized first.
        max_size: maximum of the longer side, and side of the crop (default: `size`).
        p: probability.
        skip: types of later operations that leave a mosaic as it is, for example RandomZoomOut.
    """

    def __init__(
        self,
        *,
        size: int,
        max_size: int | None = None,
        p: Fraction = 1.0,
        skip: Sequence[str] = (),
    ) -> None:
        self.resize = Resize(size=size, max_size=max_size)
        self.crop = RandomCrop(size=max_size or size)
        self.p = p
        self.skip = tuple(skip)
        self._source: SampleSource | None = None

    def bind(self, source: SampleSource) -> None:
        """Set the data set of the other images."""
        self._source = source

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Build the mosaic with probability `p`."""
        if self.p < 1 and rng.random() >= self.p:
            return sample
        if self._source is None:
            raise ValueError("Mosaic needs a data set: use it inside Compose")
        picks = [rng.randrange(len(self._source)) for _ in range(3)]
        tiles = [sample, *(self._source.load_readable(i)[1] for i in picks)]
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
            tile.move_boxes(lambda boxes, x=x, y=y: boxes + (x, y, x, y))  # type: ignore[misc]
        mosaic = Sample(
            image=image,
            boxes=np.concatenate([t.boxes for t in tiles]),
            labels=np.concatenate([t.labels for t in tiles]),
            area=np.concatenate([t.area for t in tiles]),
            crowd_boxes=np.concatenate([t.crowd_boxes for t in tiles]),
            crowd_labels=np.concatenate([t.crowd_labels for t in tiles]),
            skips=self.skip,
        )
        return self.crop(mosaic, rng)
