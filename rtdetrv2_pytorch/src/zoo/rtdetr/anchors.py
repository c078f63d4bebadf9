"""Initial boxes of the decoder: one candidate per cell of every feature level.

Shape letters: A anchors, the cells of all levels together; H, W size of one level in cells.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_FINEST_SIDE = 0.05  # fraction of the image side; the published weights depend on it


def anchor_logits(
    level_sizes: Sequence[tuple[int, int]],
    *,
    margin: float,
    device: torch.device | None = None,
) -> tuple[Tensor, Tensor]:
    """Create one square box per cell, in logit space.

    The side of the boxes doubles with each level. The decoder refines boxes by adding to their
    logits. A box with a coordinate outside (margin, 1 - margin) is marked invalid and set to +inf,
    so that query selection skips it.

    Args:
        level_sizes: (height, width) in cells of each level, finest first.
        margin: minimum distance of valid coordinates from 0 and 1.
        device: device of the result.

    Returns:
        logits: [1, A, 4] float32, cxcywh before the sigmoid.
        valid: [1, A, 1] bool.

    Raises:
        ValueError: if a level has no cells.

    Source: query selection of RT-DETR, arXiv:2304.08069.
    """
    boxes = []
    for level, (height, width) in enumerate(level_sizes):
        if height < 1 or width < 1:
            raise ValueError(f"level {level} is {height}x{width} cells: the image is too small")
        cx = ((torch.arange(width, device=device) + 0.5) / width).expand(height, width)
        cy = ((torch.arange(height, device=device) + 0.5) / height)[:, None].expand(height, width)
        side = torch.full_like(cx, _FINEST_SIDE * 2.0**level)
        boxes.append(torch.stack((cx, cy, side, side), dim=-1).flatten(0, 1))  # [H*W, 4]

    anchors = torch.cat(boxes)[None]
    valid = ((anchors > margin) & (anchors < 1 - margin)).all(dim=-1, keepdim=True)
    return torch.where(valid, anchors.logit(), torch.inf), valid
