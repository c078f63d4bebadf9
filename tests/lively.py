"""Detectors with random weights that answer to what they see, without any training.

Fresh weights give every query of every image nearly the same box and score: a test could not tell
images, slots or queries apart.
"""

import re

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

_FIXED = r"anchors$|num_points_scale$|pos_embed\d$|num_batches_tracked$"  # what follows from sizes


def pictures(count: int, size_hw: tuple[int, int], seed: int = 0) -> Tensor:
    """Blots of colour, different in every picture: [count, 3, H, W] float 0..1."""
    generator = torch.Generator().manual_seed(seed)
    blots = torch.rand(count, 3, 4, 6, generator=generator)
    smooth = F.interpolate(blots, size_hw, mode="bilinear", align_corners=False)
    return (smooth + 0.2 * torch.rand(count, 3, *size_hw, generator=generator)).clamp(0, 1)


@torch.no_grad()
def enliven(model: nn.Module, size_hw: tuple[int, int], seed: int = 0) -> nn.Module:
    """Random weights whose activations keep their scale, with statistics of real activations."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if not value.is_floating_point() or re.search(_FIXED, name):
            continue
        if value.dim() > 1:
            gain = 2.0 if re.search(r"score_head|sampling_offsets", name) else 1.0
            value.normal_(generator=generator).mul_(gain / value[0].numel() ** 0.5)
        elif name.endswith("running_var") or (name.endswith("weight") and "norm" in name):
            value.uniform_(0.7, 1.3, generator=generator)
        else:
            value += 0.1 * torch.randn(value.shape, generator=generator)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    model.eval()
    for norm in norms:
        norm.train()
        norm.momentum = None  # average over all of the batch
        norm.reset_running_stats()
    model(pictures(4, size_hw, seed=seed + 1))
    return model.eval()
