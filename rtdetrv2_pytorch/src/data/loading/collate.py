"""Collation of items to batches, and the image size of each batch."""

import random
import statistics
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ...misc.seeding import derive_seed
from ...structures import Target

Batch = tuple[Tensor, list[Target]]


class BatchImageCollateFunction:
    """Stacks images, lists targets, and chooses the size of a multi-scale training batch.

    The size depends only on (seed, epoch, step), so that all ranks use the same one. `resize_batch`
    applies it on the device.

    Args:
        scales: sizes to choose from, for square images; other images keep their aspect ratio (see
            `scale_sizes`). None: no multi-scale training.
        stop_epoch: first epoch (0-based) without multi-scale training; None: never.
        seed: of the run.
    """

    def __init__(
        self, *, scales: list[int] | None = None, stop_epoch: int | None = None, seed: int = 0
    ) -> None:
        self.scales = scales
        self.stop_epoch = stop_epoch
        self.seed = seed

    def __call__(self, items: Sequence[tuple[Tensor, Target] | None]) -> Batch:
        """Collate the readable items; the batch may be empty.

        Raises:
            ValueError: if the images differ in size.
        """
        readable = [item for item in items if item is not None]
        images = [image for image, _ in readable]
        if len({image.shape for image in images}) > 1:
            sizes = sorted({f"{i.shape[1]}x{i.shape[2]}" for i in images})
            raise ValueError(
                f"images of a batch differ in size ({', '.join(sizes)}); end the transforms "
                "with a Resize to (height, width)"
            )
        stacked = torch.stack(images) if images else torch.empty(0, 3, 0, 0, dtype=torch.uint8)
        return stacked, [target for _, target in readable]

    def size_for(self, size_hw: tuple[int, int], epoch: int, step: int) -> tuple[int, int]:
        """Return (height, width) of a training batch."""
        if not self.scales or (self.stop_epoch is not None and epoch >= self.stop_epoch):
            return size_hw
        rng = random.Random(derive_seed(self.seed, epoch, step))
        return rng.choice(scale_sizes(self.scales, size_hw))


def scale_sizes(scales: Sequence[int], size_hw: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the sizes, (height, width), of `scales` for a base size.

    A scale is the longer side; the aspect ratio of the base is kept. Recipes list scales around
    640. If the base is outside their range, each scale is used relative to their median. All sides
    are multiples of 32.

    Args:
        scales: sides, for example 480 to 800.
        size_hw: (height, width) of the base, as resized by the transforms.
    """
    longer = max(size_hw)
    unit = longer if min(scales) <= longer <= max(scales) else statistics.median(scales)
    return [
        (_multiple_of_32(size_hw[0] * s / unit), _multiple_of_32(size_hw[1] * s / unit))
        for s in scales
    ]


def _multiple_of_32(side: float) -> int:
    return max(32, 32 * round(side / 32))


def resize_batch(images: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize a batch on its device: [B, 3, H, W] uint8 -> [B, 3, height, width] float 0..1."""
    if images.dtype == torch.uint8:
        images = images.float().div_(255)
    if tuple(images.shape[-2:]) == size_hw:
        return images
    return F.interpolate(images, size=size_hw, mode="bilinear", align_corners=False)
