"""Loss functions for several sets of predictions.

Each function returns one sum per set: [S]. S sets, B images, Q queries, K classes, p pairs.
`logits` are [S, B, Q, K], `labels` the classes of the pairs in `matches`: [p].
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ...misc.boxes import cxcywh_to_xyxy
from ...structures import GroundTruth
from .matcher import Matches

_INSIDE = 0.5  # part of a prediction inside a crowd region from which it is ignored


@torch.no_grad()
def inside_crowds(boxes: Tensor, crowds: GroundTruth, num_classes: int) -> Tensor:
    """Find the predictions that are not background, because they are inside a crowd region.

    Args:
        boxes: [S, B, Q, 4] cxcywh 0..1.
        crowds: the crowd regions.
        num_classes: classes (K) of the predictions.

    Returns:
        [S, B, Q, K] bool: more than half of the prediction is inside a region of the class.
    """
    x1, y1, x2, y2 = cxcywh_to_xyxy(boxes[:, crowds.image_index]).unbind(-1)  # each [S, C, Q]
    left, top, right, bottom = cxcywh_to_xyxy(crowds.boxes)[:, :, None].unbind(1)  # each [C, 1]
    width = (torch.minimum(x2, right) - torch.maximum(x1, left)).clamp(min=0)
    height = (torch.minimum(y2, bottom) - torch.maximum(y1, top)).clamp(min=0)
    is_inside = width * height > _INSIDE * (x2 - x1) * (y2 - y1)
    num_sets, num_images, num_queries, _ = boxes.shape
    rows = crowds.image_index * num_classes + crowds.labels
    counts = boxes.new_zeros(num_sets, num_images * num_classes, num_queries)
    counts.index_add_(1, rows, is_inside.to(counts.dtype))
    return counts.view(num_sets, num_images, num_classes, num_queries).transpose(2, 3) > 0


def varifocal_loss(
    logits: Tensor,
    matches: Matches,
    labels: Tensor,
    quality: Tensor,
    *,
    alpha: float,
    gamma: float,
    ignored: Tensor | None = None,
) -> Tensor:
    """Compute the varifocal loss: the target of a matched entry is the overlap of its box.

    Matched entries are weighted by their quality. Background entries have a focal weight, which
    reduces the loss of confident correct predictions.

    `quality` is the overlap of each pair, [p]; `alpha` and `gamma` are weight and focus of the
    background. Unmatched entries where `ignored`, [S, B, Q, K] bool, have no loss.

    Source: VarifocalNet, arXiv:2008.13367.
    """
    place = (matches.set_index, matches.image_index, matches.query_index, labels)
    target = torch.zeros_like(logits)
    target[place] = quality
    weight = alpha * logits.detach().sigmoid() ** gamma
    if ignored is not None:
        weight = weight.masked_fill(ignored, 0)
    weight[place] = quality
    loss = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="none")
    return loss.flatten(1).sum(1)


def matchability_aware_loss(
    logits: Tensor,
    matches: Matches,
    labels: Tensor,
    quality: Tensor,
    *,
    gamma: float,
    ignored: Tensor | None = None,
) -> Tensor:
    """Compute the matchability-aware loss (MAL): matched entries have the full weight.

    The varifocal loss weights a matched entry by its quality, so that matches with a low overlap
    are hardly trained. With p the score and q the overlap, a matched entry has the loss
    -q^gamma log(p) - (1 - q^gamma) log(1 - p), and another one -p^gamma log(1 - p).

    `quality` is the overlap of each pair, [p]; `gamma` the focus of both. Unmatched entries where
    `ignored`, [S, B, Q, K] bool, have no loss.

    Source: DEIM, arXiv:2412.04234.
    """
    place = (matches.set_index, matches.image_index, matches.query_index, labels)
    target = torch.zeros_like(logits)
    target[place] = quality.clamp(min=0) ** gamma  # GIoU can be negative
    weight = logits.detach().sigmoid() ** gamma
    if ignored is not None:
        weight = weight.masked_fill(ignored, 0)
    weight[place] = 1
    loss = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="none")
    return loss.flatten(1).sum(1)


def sigmoid_focal_loss(
    logits: Tensor,
    matches: Matches,
    labels: Tensor,
    *,
    alpha: float,
    gamma: float,
    ignored: Tensor | None = None,
) -> Tensor:
    """Compute the focal loss with target 1 for matched entries.

    `alpha` is the weight of matched entries, 1 - alpha that of others; `gamma` favors hard ones.
    Unmatched entries where `ignored`, [S, B, Q, K] bool, have no loss.

    Source: arXiv:1708.02002.
    """
    target = torch.zeros_like(logits)
    target[matches.set_index, matches.image_index, matches.query_index, labels] = 1
    p = logits.sigmoid()
    missing = p * (1 - target) + (1 - p) * target
    weight = (alpha * target + (1 - alpha) * (1 - target)) * missing**gamma
    if ignored is not None:
        weight = weight.masked_fill(ignored & (target == 0), 0)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (weight * entropy).flatten(1).sum(1)


def sum_per_set(values: Tensor, matches: Matches, num_sets: int) -> Tensor:
    """Sum one value per pair for each set: [p] -> [S]."""
    return values.new_zeros(num_sets).index_add(0, matches.set_index, values)
