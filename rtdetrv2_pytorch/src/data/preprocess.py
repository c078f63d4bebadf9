"""From an image in memory to the network's input: shared by validation, serving and demos."""

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize


def preprocess(image: np.ndarray, size_hw: tuple[int, int]) -> Tensor:
    """Resize one RGB image as validation does: to the given size, whatever its shape.

    Args:
        image: [H, W, 3] uint8 RGB.
        size_hw: (height, width) that the network takes; from its configuration, never a constant.

    Returns:
        [3, height, width] uint8; the model scales it to 0..1.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    return resize(pixels, list(size_hw), antialias=True)
