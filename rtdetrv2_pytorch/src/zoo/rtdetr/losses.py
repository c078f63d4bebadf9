"""Loss functions for several sets of predictions.

Each function returns one sum per set: [S]. S sets, B images, Q queries, K classes, p pairs.
`logits` are [S, B, Q, K], `labels` the classes of the pairs in `matches`: [p].
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .matcher import Matches


def varifocal_loss(
    logits: Tensor, matches: Matches, labels: Tensor, quality: Tensor, *, alpha: float, gamma: float
) -> Tensor:
    """Compute the varifocal loss: the target of a matched entry is the overlap of its box.

    Matched entries are weighted by their quality. Background entries have a focal weight, which
    reduces the loss of confident correct predictions.

    `quality` is the overlap of each pair, [p]; `alpha` and `gamma` are weight and focus of the
    background.

    Source: VarifocalNet, arXiv:2008.13367.
    """
    place = (matches.set_index, matches.image_index, matches.query_index, labels)
    target = torch.zeros_like(logits)
    target[place] = quality
    weight = alpha * logits.detach().sigmoid() ** gamma
    weight[place] = quality
    loss = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="none")
    return loss.flatten(1).sum(1)


def sigmoid_focal_loss(
    logits: Tensor, matches: Matches, labels: Tensor, *, alpha: float, gamma: float
) -> Tensor:
    """Compute the focal loss with target 1 for matched entries.

    `alpha` is the weight of matched entries, 1 - alpha that of others; `gamma` favors hard ones.

    Source: arXiv:1708.02002.
    """
    target = torch.zeros_like(logits)
    target[matches.set_index, matches.image_index, matches.query_index, labels] = 1
    p = logits.sigmoid()
    missing = p * (1 - target) + (1 - p) * target
    weight = (alpha * target + (1 - alpha) * (1 - target)) * missing**gamma
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (weight * entropy).flatten(1).sum(1)


def sum_per_set(values: Tensor, matches: Matches, num_sets: int) -> Tensor:
    """Sum one value per pair for each set: [p] -> [S]."""
    return values.new_zeros(num_sets).index_add(0, matches.set_index, values)
