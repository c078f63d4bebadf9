"""Box formats and overlaps, elementwise and with broadcasting.

Formats: `cxcywh` is center and size, `xyxy` two corners. Functions take [..., 4] with any leading
shape, so that one call processes all decoder layers of a batch.
"""

import torch
from torch import Tensor

_MIN_AREA = 1e-12  # far below one pixel of any image; avoids 0/0 in gradients


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Convert centers and sizes to corners; [..., 4] in any unit."""
    center, half_size = boxes[..., :2], boxes[..., 2:] * 0.5
    return torch.cat((center - half_size, center + half_size), dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Convert corners to centers and sizes; [..., 4] in any unit."""
    top_left, bottom_right = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((top_left + bottom_right) * 0.5, bottom_right - top_left), dim=-1)


def iou_and_giou(boxes_xyxy: Tensor, others_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the overlap of boxes elementwise.

    Shapes broadcast: [S, T, Q, 4] and [T, 1, 4] give all pairs.

    Args:
        boxes_xyxy: [..., 4].
        others_xyxy: [..., 4], broadcastable with `boxes_xyxy`.

    Returns:
        iou: [...], intersection over union, 0..1.
        giou: [...], generalized IoU, -1..1: IoU minus the fraction of the enclosing box that
            neither box covers.

    Two boxes without area give 0 and finite gradients.

    Source: GIoU, arXiv:1902.09630.
    """
    x1, y1, x2, y2 = boxes_xyxy.unbind(-1)
    ox1, oy1, ox2, oy2 = others_xyxy.unbind(-1)
    area = (x2 - x1) * (y2 - y1) + (ox2 - ox1) * (oy2 - oy1)

    inner_width = (torch.minimum(x2, ox2) - torch.maximum(x1, ox1)).clamp(min=0)
    inner_height = (torch.minimum(y2, oy2) - torch.maximum(y1, oy1)).clamp(min=0)
    intersection = inner_width * inner_height
    union = (area - intersection).clamp(min=_MIN_AREA)
    iou = intersection / union

    outer_width = torch.maximum(x2, ox2) - torch.minimum(x1, ox1)
    outer_height = torch.maximum(y2, oy2) - torch.minimum(y1, oy1)
    enclosing = (outer_width * outer_height).clamp(min=_MIN_AREA)
    return iou, iou - (enclosing - union) / enclosing
