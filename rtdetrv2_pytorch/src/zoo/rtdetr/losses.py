"""Loss functions for several sets of predictions.

Each function returns one value per set: [S]. S sets, B images, Q queries, K classes, p pairs.
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

    Args:
        logits: [S, B, Q, K].
        matches: the pairs.
        labels: [p] class of each pair.
        quality: [p] overlap of each pair, the target score.
        alpha: weight of the background.
        gamma: focus of the background.

    Returns:
        [S], sums.

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

    Args:
        logits: [S, B, Q, K].
        matches: the pairs.
        labels: [p] class of each pair.
        alpha: weight of matched entries; the weight of others is 1 - alpha.
        gamma: focus on hard entries.

    Returns:
        [S], sums.

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
