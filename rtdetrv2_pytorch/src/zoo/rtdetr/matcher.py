"""One-to-one matching of predictions and ground-truth boxes with minimum total cost.

Several sets of predictions (decoder layers, the encoder's selection) are matched together: one cost
tensor on the GPU, one copy to the host, then the assignments.
Source: DETR, arXiv:2005.12872, with the focal class cost of Deformable DETR.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ...misc.boxes import cxcywh_to_xyxy, iou_and_giou
from ...misc.devices import wait_for
from ...misc.errors import TrainingDiverged, extra
from ...structures import GroundTruth, LayerOutput, Target

CostName = Literal["cost_class", "cost_bbox", "cost_giou"]


@dataclass(frozen=True)
class Matches:
    """Matched pairs of all sets and images: entry p pairs a query with a ground-truth box.

    Sorted by set, then image, then query.
    """

    set_index: Tensor  # [p] int64, which set of predictions
    image_index: Tensor  # [p] int64, index in the batch
    query_index: Tensor  # [p] int64
    truth_index: Tensor  # [p] int64, row of the flat ground truth

    def repeat_for_sets(self, num_sets: int) -> "Matches":
        """Repeat the pairs of one set for `num_sets` sets."""
        pairs = len(self.set_index)
        sets = torch.arange(num_sets, device=self.set_index.device).repeat_interleave(pairs)
        rest = (self.image_index, self.query_index, self.truth_index)
        return Matches(sets, *(index.repeat(num_sets) for index in rest))


class HungarianMatcher:
    """Match predictions with ground truth.

    Args:
        weight_dict: weights `cost_class`, `cost_bbox` (L1) and `cost_giou`.
        use_focal_loss: class cost of a sigmoid classifier; else of a softmax one.
        alpha: balance of the focal cost.
        gamma: focus of the focal cost.
    """

    def __init__(
        self,
        *,
        weight_dict: Mapping[CostName, float],
        use_focal_loss: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
    ) -> None:
        unknown = set(weight_dict) - {"cost_class", "cost_bbox", "cost_giou"}
        if unknown or not any(weight_dict.values()):
            raise ValueError(
                f"weight_dict {dict(weight_dict)}: give cost_class, cost_bbox and cost_giou, "
                "at least one of them above 0"
            )
        self.cost_class = weight_dict.get("cost_class", 0.0)
        self.cost_bbox = weight_dict.get("cost_bbox", 0.0)
        self.cost_giou = weight_dict.get("cost_giou", 0.0)
        self.use_focal_loss = use_focal_loss
        self.alpha = alpha
        self.gamma = gamma

    def __call__(
        self, outputs: LayerOutput, targets: Sequence[Target]
    ) -> dict[str, list[tuple[Tensor, Tensor]]]:
        """Match one set of predictions.

        Returns:
            `indices`: per image the matched queries in ascending order and their boxes.

        Raises:
            TrainingDiverged: if predictions are not finite.
        """
        logits, boxes = outputs["pred_logits"], outputs["pred_boxes"]
        truth = GroundTruth.from_targets(targets, logits.device)
        matches = self.match(logits[None], boxes[None], truth)
        indices = []
        start = 0
        for image, count in enumerate(truth.counts):
            mine = matches.image_index == image
            pair = (matches.query_index[mine], matches.truth_index[mine] - start)
            indices.append((pair[0].cpu(), pair[1].cpu()))
            start += count
        return {"indices": indices}

    @torch.no_grad()
    def match(self, logits: Tensor, boxes: Tensor, truth: GroundTruth) -> Matches:
        """Match several sets of predictions of one batch.

        Args:
            logits: [S, B, Q, K].
            boxes: [S, B, Q, 4] cxcywh 0..1.
            truth: the ground truth of the batch.

        Returns:
            The pairs. If an image has more boxes than queries, boxes stay unmatched.

        Raises:
            TrainingDiverged: if predictions are not finite, naming the images.
        """
        with extra("train"):
            from scipy.optimize import linear_sum_assignment

        num_sets, batch, num_queries = logits.shape[:3]
        num_truths = len(truth.labels)
        logits, boxes = logits.float(), boxes.float()
        cost = self._cost(logits, boxes, truth)  # [S, T, Q]
        # One number per image tells whether its predictions are finite. It is copied together with
        # the costs, which avoids a second synchronization.
        health = logits.sum((0, 2, 3)) + boxes.sum((0, 2, 3))  # [B]
        host = wait_for(torch.cat((cost.flatten(), health))).numpy()
        self._check_finite(host[cost.numel() :], truth)

        costs = host[: cost.numel()].reshape(num_sets, num_truths, num_queries)
        pairs = []
        for set_index in range(num_sets):
            start = 0
            for image, count in enumerate(truth.counts):
                if count:
                    block = costs[set_index, start : start + count]
                    rows, columns = linear_sum_assignment(block)
                    order = np.argsort(columns)
                    pair = np.empty((4, len(rows)), np.int64)
                    pair[0], pair[1] = set_index, image
                    pair[2], pair[3] = columns[order], rows[order] + start
                    pairs.append(pair)
                start += count
        flat = np.concatenate(pairs, axis=1) if pairs else np.empty((4, 0), np.int64)
        return Matches(*torch.from_numpy(flat).to(logits.device, non_blocking=True))

    def _cost(self, logits: Tensor, boxes: Tensor, truth: GroundTruth) -> Tensor:
        """Return the cost of each query of an image for each box of the image: [S, T, Q]."""
        image = truth.image_index
        # Advanced indices around a slice move their dimension to the front: [T, S, Q].
        if self.use_focal_loss:
            selected = logits[:, image, :, truth.labels].transpose(0, 1)
            p = selected.sigmoid()
            positive = self.alpha * (1 - p) ** self.gamma * -(p + 1e-8).log()
            negative = (1 - self.alpha) * p**self.gamma * -(1 - p + 1e-8).log()
            class_cost = positive - negative
        else:
            class_cost = -logits.softmax(-1)[:, image, :, truth.labels].transpose(0, 1)

        mine = boxes[:, image]  # [S, T, Q, 4]
        theirs = truth.boxes[:, None]  # [T, 1, 4]
        l1_cost = (mine - theirs).abs().sum(-1)
        _, giou = iou_and_giou(cxcywh_to_xyxy(mine), cxcywh_to_xyxy(theirs))
        return self.cost_class * class_cost + self.cost_bbox * l1_cost - self.cost_giou * giou

    @staticmethod
    def _check_finite(health: np.ndarray, truth: GroundTruth) -> None:
        bad = np.flatnonzero(~np.isfinite(health))
        if len(bad):
            ids = [int(truth.image_ids[i]) for i in bad] if truth.image_ids else bad.tolist()
            raise TrainingDiverged(
                f"the network's outputs are not finite for images with ids {ids}; inspect these "
                "images and their boxes, lower the learning rate, or train without mixed precision"
            )
