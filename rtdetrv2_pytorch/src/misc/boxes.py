"""Box formats and overlaps, elementwise and with broadcasting.

Formats: `cxcywh` centre and size, `xyxy` two corners. Every function takes [..., 4] and works on
any leading shape, so that all decoder layers of a batch are handled by one call.
"""

import torch
from torch import Tensor

_SMALLEST_AREA = 1e-12  # far under one pixel of any image; keeps 0/0 out of the gradients


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Turn centres and sizes into corners; [..., 4] in any unit."""
    centre, half_size = boxes[..., :2], boxes[..., 2:] * 0.5
    return torch.cat((centre - half_size, centre + half_size), dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Turn corners into centres and sizes; [..., 4] in any unit."""
    top_left, bottom_right = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((top_left + bottom_right) * 0.5, bottom_right - top_left), dim=-1)


def iou_and_giou(boxes_xyxy: Tensor, others_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Overlap of boxes with their counterparts.

    Elementwise: entry i of one side meets entry i of the other; shapes broadcast, so
    [S, T, Q, 4] against [T, 1, 4] gives all pairs.

    Args:
        boxes_xyxy: [..., 4].
        others_xyxy: [..., 4], broadcastable with `boxes_xyxy`.

    Returns:
        iou: [...], intersection over union, 0..1.
        giou: [...], generalised IoU, -1..1: IoU minus the share of the enclosing box that
            neither box covers.

    Two boxes without area give 0 and a finite gradient, not NaN.

    Source: GIoU, arXiv:1902.09630.
    """
    x1, y1, x2, y2 = boxes_xyxy.unbind(-1)
    ox1, oy1, ox2, oy2 = others_xyxy.unbind(-1)
    area = (x2 - x1) * (y2 - y1) + (ox2 - ox1) * (oy2 - oy1)

    inner_width = (torch.minimum(x2, ox2) - torch.maximum(x1, ox1)).clamp(min=0)
    inner_height = (torch.minimum(y2, oy2) - torch.maximum(y1, oy1)).clamp(min=0)
    intersection = inner_width * inner_height
    union = (area - intersection).clamp(min=_SMALLEST_AREA)
    iou = intersection / union

    outer_width = torch.maximum(x2, ox2) - torch.minimum(x1, ox1)
    outer_height = torch.maximum(y2, oy2) - torch.minimum(y1, oy1)
    enclosing = (outer_width * outer_height).clamp(min=_SMALLEST_AREA)
    return iou, iou - (enclosing - union) / enclosing
