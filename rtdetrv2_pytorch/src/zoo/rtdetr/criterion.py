"""The training loss: varifocal classification loss, L1 and GIoU loss of matched boxes.

All decoder layers and the encoder's selection are matched and computed together, and so are the
denoising groups: the number of kernels does not depend on the number of layers or images.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...misc import distributed
from ...misc.boxes import cxcywh_to_xyxy, iou_and_giou
from ...misc.errors import TrainingDiverged
from ...structures import DecoderOutput, DenoisingMeta, GroundTruth, LayerOutput, Target
from .losses import (
    inside_crowds,
    matchability_aware_loss,
    sigmoid_focal_loss,
    sum_per_set,
    varifocal_loss,
)
from .matcher import HungarianMatcher, Matches

LossName = Literal["vfl", "mal", "focal", "boxes"]
TermName = Literal["loss_vfl", "loss_mal", "loss_focal", "loss_bbox", "loss_giou"]


class RTDETRCriterionv2(nn.Module):
    """Weighted loss terms of all predictions of a training step.

    Predictions inside a crowd region are not trained as background of its class.

    Args:
        matcher: pairs predictions with ground truth.
        weight_dict: weight of `loss_vfl`, `loss_mal`, `loss_focal`, `loss_bbox`, `loss_giou`;
            terms without an entry are left out.
        losses: which groups of terms to compute: the classification loss "vfl" (varifocal), "mal"
            (matchability-aware, without a measured gain so far) or "focal"; "boxes" is L1 and GIoU.
        alpha: balance of the classification loss; "mal" has none.
        gamma: focus of the classification loss.
        num_classes: classes (K).
        boxes_weight_format: "iou" or "giou": the match's overlap also weighs `loss_giou` and is
            the classification's target; None: IoU as target, no weighing.
        share_matched_indices: reuse the last layer's pairs for the other decoder layers.
    """

    def __init__(
        self,
        *,
        matcher: HungarianMatcher,
        weight_dict: Mapping[TermName, float],
        losses: Sequence[LossName],
        alpha: float = 0.2,
        gamma: float = 2.0,
        num_classes: int = 80,
        boxes_weight_format: Literal["iou", "giou"] | None = None,
        share_matched_indices: bool = False,
    ) -> None:
        super().__init__()
        self.matcher = matcher
        self.weight_dict: dict[str, float] = {str(k): v for k, v in weight_dict.items()}
        self.losses = list(losses)
        self.alpha = alpha
        self.gamma = gamma
        self.num_classes = num_classes
        self.boxes_weight_format = boxes_weight_format
        self.share_matched_indices = share_matched_indices

    def forward(
        self,
        outputs: DecoderOutput,
        targets: Sequence[Target],
        epoch: int | None = None,
        step: int | None = None,
        global_step: int | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """Compute all terms.

        Args:
            outputs: of the model, in training or evaluation mode.
            targets: one per image; boxes cxcywh 0..1.
            epoch: for error messages.
            step: for error messages.
            global_step: for error messages.

        Returns:
            Weighted terms: `loss_vfl`, `loss_bbox`, `loss_giou` of the last layer, `_aux_i` of
            the layers before, `_enc_0` of the encoder's selection, `_dn_i` of the denoising
            queries. Their sum is the loss.

        Raises:
            TrainingDiverged: if predictions are not finite, naming step and images.
        """
        device_type = outputs["pred_logits"].device.type
        with torch.autocast(device_type, enabled=False):
            truth = GroundTruth.from_targets(targets, outputs["pred_logits"].device)
            num_boxes = self._num_boxes(truth)
            try:
                terms = self._matching_terms(outputs, truth, num_boxes)
            except TrainingDiverged as error:
                if epoch is None:  # an evaluation has no steps
                    raise
                number = step if global_step is None else global_step
                place = f"epoch {epoch + 1}, step {(number or 0) + 1}"
                raise TrainingDiverged(f"{place}: {error}") from error
            if "dn_aux_outputs" in outputs:
                terms |= self._denoising_terms(
                    outputs["dn_aux_outputs"], outputs["dn_meta"], truth, num_boxes
                )
        return terms

    def _num_boxes(self, truth: GroundTruth) -> Tensor:
        """Return the number of boxes, at least 1, as a tensor to avoid synchronization.

        In training, return the mean over the ranks, because gradients are averaged.
        """
        count = torch.full((), float(len(truth.labels)), device=truth.labels.device)
        if not self.training:  # ranks may have different numbers of evaluation batches
            return count.clamp(min=1)
        return distributed.sum_over_ranks(count).clamp(min=1) / distributed.world_size()

    def _matching_terms(
        self, outputs: DecoderOutput, truth: GroundTruth, num_boxes: Tensor
    ) -> dict[str, Tensor]:
        last = LayerOutput(pred_logits=outputs["pred_logits"], pred_boxes=outputs["pred_boxes"])
        decoder = [last, *outputs.get("aux_outputs", [])]
        encoder = list(outputs.get("enc_aux_outputs", []))
        names = ["", *(f"_aux_{i}" for i in range(len(decoder) - 1))]
        encoder_names = [f"_enc_{i}" for i in range(len(encoder))]
        class_agnostic = outputs.get("enc_meta", {}).get("class_agnostic", False)

        if not encoder or not (class_agnostic or self.share_matched_indices):
            return self._matched(decoder + encoder, names + encoder_names, truth, num_boxes)
        # A class-agnostic encoder predicts one object score.
        objects = truth.class_agnostic() if class_agnostic else truth
        return self._matched(
            decoder, names, truth, num_boxes, share=self.share_matched_indices
        ) | self._matched(encoder, encoder_names, objects, num_boxes)

    def _matched(
        self,
        layers: Sequence[LayerOutput],
        names: Sequence[str],
        truth: GroundTruth,
        num_boxes: Tensor,
        *,
        share: bool = False,
    ) -> dict[str, Tensor]:
        """Match layers and compute their losses; `share` uses the pairs of the first layer."""
        logits, boxes = _stack(layers)
        if share:
            matches = self.matcher.match(logits[:1], boxes[:1], truth).repeat_for_sets(len(layers))
        else:
            matches = self.matcher.match(logits, boxes, truth)
        return self._apply_weights(self._compute(logits, boxes, matches, truth, num_boxes), names)

    def _denoising_terms(
        self,
        layers: Sequence[LayerOutput],
        meta: DenoisingMeta,
        truth: GroundTruth,
        num_boxes: Tensor,
    ) -> dict[str, Tensor]:
        """Compute the terms of the denoising queries, whose boxes are known without matching."""
        groups = meta["dn_num_group"]
        query_index = torch.cat([index.cpu() for index in meta["dn_positive_idx"]])
        per_image = torch.tensor(truth.counts) * groups
        starts = torch.tensor(truth.counts).cumsum(0) - torch.tensor(truth.counts)
        truth_index = torch.cat(
            [
                (start + torch.arange(count)).repeat(groups)
                for start, count in zip(starts, truth.counts, strict=True)
            ]
        )
        image_index = torch.repeat_interleave(torch.arange(len(truth.counts)), per_image)
        flat = torch.stack((torch.zeros_like(image_index), image_index, query_index, truth_index))
        pairs = Matches(*flat.to(truth.labels.device, non_blocking=True))

        logits, boxes = _stack(layers)
        matches = pairs.repeat_for_sets(len(layers))
        terms = self._compute(logits, boxes, matches, truth, num_boxes * groups)
        return self._apply_weights(terms, [f"_dn_{i}" for i in range(len(layers))])

    def _compute(
        self,
        logits: Tensor,
        boxes: Tensor,
        matches: Matches,
        truth: GroundTruth,
        num_boxes: Tensor,
    ) -> dict[str, Tensor]:
        """Compute unweighted terms, one value per set.

        Args:
            logits: [S, B, Q, K] float32.
            boxes: [S, B, Q, 4] float32 cxcywh 0..1.
            matches: the pairs.
            truth: the ground truth.
            num_boxes: divisor.
        """
        num_sets = len(logits)
        predicted = boxes[matches.set_index, matches.image_index, matches.query_index]  # [p, 4]
        target_boxes = truth.boxes[matches.truth_index]
        labels = truth.labels[matches.truth_index]
        iou, giou = iou_and_giou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(target_boxes))
        overlap = (giou if self.boxes_weight_format == "giou" else iou).detach()

        terms: dict[str, Tensor] = {}
        balance = {"alpha": self.alpha, "gamma": self.gamma}
        ignored = None
        if truth.crowds is not None:
            ignored = inside_crowds(boxes, truth.crowds, logits.shape[-1])
        if "vfl" in self.losses:
            terms["loss_vfl"] = varifocal_loss(
                logits, matches, labels, overlap, ignored=ignored, **balance
            )
        if "mal" in self.losses:
            terms["loss_mal"] = matchability_aware_loss(
                logits, matches, labels, overlap, gamma=self.gamma, ignored=ignored
            )
        if "focal" in self.losses:
            terms["loss_focal"] = sigmoid_focal_loss(
                logits, matches, labels, ignored=ignored, **balance
            )
        if "boxes" in self.losses:
            distance = (predicted - target_boxes).abs().sum(-1)
            terms["loss_bbox"] = sum_per_set(distance, matches, num_sets)
            lost = 1 - giou if self.boxes_weight_format is None else (1 - giou) * overlap
            terms["loss_giou"] = sum_per_set(lost, matches, num_sets)
        return {name: value / num_boxes for name, value in terms.items()}

    def _apply_weights(
        self, terms: Mapping[str, Tensor], suffixes: Sequence[str]
    ) -> dict[str, Tensor]:
        return {
            f"{name}{suffix}": value[i] * self.weight_dict[name]
            for i, suffix in enumerate(suffixes)
            for name, value in terms.items()
            if name in self.weight_dict
        }


def _stack(layers: Sequence[LayerOutput]) -> tuple[Tensor, Tensor]:
    """Stack layers: [S, B, Q, K] and [S, B, Q, 4], float32."""
    return (
        torch.stack([layer["pred_logits"] for layer in layers]).float(),
        torch.stack([layer["pred_boxes"] for layer in layers]).float(),
    )
