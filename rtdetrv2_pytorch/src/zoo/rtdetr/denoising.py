"""Contrastive denoising: additional training queries near ground-truth boxes.

Early in training, Hungarian matching is unstable. Denoising queries do not need it: they start from
a noisy copy of a known box and class. Each box has a positive query with little noise, which
recovers the box, and a negative query with more noise, which predicts background, in several
independent groups. Source: DINO, arXiv:2203.03605.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...misc import distributed
from ...misc.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from ...nn.layers import inverse_sigmoid
from ...structures import DenoisingMeta, GroundTruth, Target

_EMPTY_BOX = (0.5, 0.5, 0.1, 0.1)


@dataclass(frozen=True)
class DenoisingQueries:
    """Queries placed before the matching queries; R = 2 * boxes * groups."""

    content: Tensor  # [B, R, D]
    reference_logits: Tensor  # [B, R, 4] cxcywh before the sigmoid
    visible: Tensor  # [R + Q, R + Q] bool: whether the row attends to the column
    meta: DenoisingMeta


def make_denoising_queries(
    targets: Sequence[Target],
    class_embed: nn.Embedding,
    *,
    num_queries: int,
    num_denoising: int,
    label_noise_ratio: float,
    box_noise_scale: float,
) -> DenoisingQueries:
    """Build the denoising queries of a batch.

    A batch without boxes gets one dummy group without targets: all ranks then use the same
    parameters, as data-parallel training requires.

    The ranks agree on the number of groups. Each samples the noise for the images of all ranks and
    uses its own part, so the queries of a batch do not depend on the number of ranks.

    Args:
        targets: one per image; boxes cxcywh 0..1.
        class_embed: K + 1 rows; the last one is the zero padding embedding.
        num_queries: matching queries (Q).
        num_denoising: target number of positive queries, which determines the number of groups.
        label_noise_ratio: twice the fraction of labels replaced by a random one.
        box_noise_scale: maximum shift of a corner in half box sides; 0 disables it.
    """
    device = class_embed.weight.device
    num_classes = class_embed.num_embeddings - 1
    truth = GroundTruth.from_targets(targets, device)
    batch = len(truth.counts)
    parts = distributed.gather_numbers(batch, max(truth.counts))
    num_images = sum(images for images, _ in parts)  # on all ranks
    start = sum(images for images, _ in parts[: distributed.rank()])
    mine = slice(start, start + batch)
    most = max(boxes for _, boxes in parts)
    width = max(1, most)  # images are padded to it
    groups = max(1, num_denoising // width) if most else 1

    slot = torch.cat([torch.arange(n) for n in truth.counts]).to(device, non_blocking=True)
    labels = torch.full((batch, width), num_classes, device=device)
    labels[truth.image_index, slot] = truth.labels
    boxes = torch.zeros(batch, width, 4, device=device)
    boxes[truth.image_index, slot] = truth.boxes
    if not most:
        for coordinate, value in enumerate(_EMPTY_BOX):  # a new tensor would synchronize
            boxes[..., coordinate] = value

    # Order of the queries: by group; in a group first positives, then negatives.
    labels = labels.repeat(1, 2 * groups)  # [B, R]
    boxes = boxes.repeat(1, 2 * groups, 1)  # [B, R, 4]
    place = torch.arange(2 * width * groups, device=device)
    is_negative = (place // width) % 2 == 1

    if label_noise_ratio > 0:
        shape = (num_images, labels.shape[1])
        is_replaced = torch.rand(shape, device=device)[mine] < label_noise_ratio * 0.5
        is_replaced &= labels != num_classes
        others = torch.randint(num_classes, shape, device=device)[mine]
        labels = torch.where(is_replaced, others, labels)
    if box_noise_scale > 0:
        boxes = _move_corners(boxes, is_negative, box_noise_scale, num_images, mine)

    own_group = place // (2 * width)
    total = len(place) + num_queries
    visible = torch.ones(total, total, dtype=torch.bool, device=device)
    visible[: len(place), : len(place)] = own_group[:, None] == own_group
    visible[len(place) :, : len(place)] = False

    group_start = torch.arange(groups)[:, None] * 2 * width
    return DenoisingQueries(
        content=class_embed(labels),
        reference_logits=inverse_sigmoid(boxes),
        visible=visible,
        meta={
            "dn_positive_idx": [(group_start + torch.arange(n)).flatten() for n in truth.counts],
            "dn_num_group": groups,
            "dn_num_split": [len(place), num_queries],
        },
    )


def _move_corners(
    boxes: Tensor, is_negative: Tensor, scale: float, num_images: int, mine: slice
) -> Tensor:
    """Shift corner coordinates by up to one half side, of negative queries by one to two.

    Corners may cross, which results in boxes of negative size. The published weights were trained
    with them, and they are only starting points.

    Args:
        boxes: [B, R, 4] cxcywh 0..1.
        is_negative: [R] bool.
        scale: multiplies the shift.
        num_images: images on all ranks, for which to sample noise.
        mine: slice of `boxes` in them.

    Returns:
        [B, R, 4] cxcywh, corners clipped to the image.
    """
    half_side = boxes[..., 2:].repeat(1, 1, 2) * 0.5
    shape = (num_images, *boxes.shape[1:])
    sign = torch.randint(2, shape, dtype=boxes.dtype, device=boxes.device)[mine] * 2 - 1
    amount = torch.rand(shape, dtype=boxes.dtype, device=boxes.device)[mine]
    amount = amount + is_negative[:, None]
    corners = cxcywh_to_xyxy(boxes) + sign * amount * half_side * scale
    return xyxy_to_cxcywh(corners.clamp(min=0, max=1))
