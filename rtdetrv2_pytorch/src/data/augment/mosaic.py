"""The mosaic augmentation."""

import random
from collections.abc import Sequence

import numpy as np

from ...misc.ranges import Fraction
from .cropping import RandomCrop
from .geometric import Resize
from .other_images import UsesOtherImages
from .sample import Sample


class Mosaic(UsesOtherImages):
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

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Build the mosaic with probability `p`."""
        if self.p < 1 and rng.random() >= self.p:
            return sample
        tiles = [sample, *(self.other_image(rng) for _ in range(3))]
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
