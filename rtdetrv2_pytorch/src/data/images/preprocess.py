"""Resizing of images to the network's input, shared by validation, serving and demos."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .resizing import resize


def preprocess(
    images: Sequence[np.ndarray], size_hw: tuple[int, int], device: torch.device
) -> Tensor:
    """Resize images as validation does, without keeping their aspect ratio.

    Images of equal size are resized in one call.

    Args:
        images: [H, W, 3] uint8 RGB each.
        size_hw: (height, width) of the network's input, from its configuration.
        device: of the computation and the result.

    Returns:
        [B, 3, height, width] uint8 on the device; the model scales it to 0..1.
    """
    batch = torch.empty((len(images), 3, *size_hw), dtype=torch.uint8, device=device)
    places: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        places.setdefault(image.shape, []).append(place)
    for same in places.values():
        pixels = torch.from_numpy(np.stack([images[place] for place in same])).to(device)
        resized = resize(pixels.permute(0, 3, 1, 2), size_hw)
        batch[torch.tensor(same, device=device)] = resized
    return batch
