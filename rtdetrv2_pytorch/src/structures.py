"""Data structures passed between data loading, model, losses and evaluation.

Shape letters, the same in all modules: B batch, C channels, H W height and width, L levels,
S tokens of all levels, Q queries, K classes, D hidden, M heads, P points, N ground-truth boxes of
one image, T ground-truth boxes of the batch, A anchors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NotRequired, TypedDict

import torch
from torch import Tensor


class Target(TypedDict):
    """Ground truth of one image, from the dataset to the losses."""

    boxes: Tensor  # [N, 4] float32: training cxcywh 0..1; validation xyxy pixels as resized
    labels: Tensor  # [N] int64, 0..K-1
    image_id: Tensor  # [1] int64
    area: Tensor  # [N] float32, square pixels of the original image
    iscrowd: Tensor  # [N] int64, 0: crowd regions have their own boxes
    crowd_boxes: NotRequired[Tensor]  # [C, 4] as `boxes`; detections inside are not wrong
    crowd_labels: NotRequired[Tensor]  # [C] int64
    orig_size: Tensor  # [2] int64, (width, height) of the original image
    idx: Tensor  # [1] int64, index in the dataset


class LayerOutput(TypedDict):
    """Predictions of one decoder layer, or of the encoder's selection."""

    pred_logits: Tensor  # [B, Q, K] before the sigmoid
    pred_boxes: Tensor  # [B, Q, 4] cxcywh 0..1


class DenoisingMeta(TypedDict):
    """Layout of the denoising queries."""

    dn_positive_idx: list[Tensor]  # per image: indices of its positive queries
    dn_num_group: int
    dn_num_split: list[int]  # [denoising queries, matching queries]


class DecoderOutput(LayerOutput, total=False):
    """Output of the model; in evaluation only the two entries of `LayerOutput`."""

    aux_outputs: list[LayerOutput]  # the layers before the last
    enc_aux_outputs: list[LayerOutput]  # the selected anchors
    enc_meta: dict[str, bool]
    dn_aux_outputs: list[LayerOutput]  # all layers, denoising queries only
    dn_meta: DenoisingMeta


class DetectionTensors(TypedDict):
    """Detections of one image, or of a batch with a leading B, in descending order of scores."""

    labels: Tensor  # [Q] int64
    boxes: Tensor  # [Q, 4] xyxy pixels of the original image
    scores: Tensor  # [Q] 0..1


@dataclass(frozen=True)
class GroundTruth:
    """All boxes of a batch in one flat table, processed without a loop over images."""

    labels: Tensor  # [T] int64
    boxes: Tensor  # [T, 4] cxcywh 0..1, float32
    image_index: Tensor  # [T] int64, index of the box's image in the batch
    counts: tuple[int, ...]  # boxes per image, on the host to avoid synchronization
    image_ids: tuple[Tensor, ...]  # one [1] tensor per image, for error messages
    crowds: "GroundTruth | None" = None  # the crowd regions, if there are any

    @classmethod
    def from_targets(cls, targets: Sequence[Target], device: torch.device) -> "GroundTruth":
        """Flatten the targets of a batch; at least one image."""
        ids = tuple(t["image_id"] for t in targets if "image_id" in t)
        crowds = None
        if any(len(t.get("crowd_labels", ())) for t in targets):
            crowds = cls._flat(
                [t["crowd_labels"] for t in targets],
                [t["crowd_boxes"] for t in targets],
                ids,
                device,
            )
        objects = cls._flat(
            [t["labels"] for t in targets], [t["boxes"] for t in targets], ids, device
        )
        return replace(objects, crowds=crowds)

    @classmethod
    def _flat(
        cls,
        labels: Sequence[Tensor],
        boxes: Sequence[Tensor],
        image_ids: tuple[Tensor, ...],
        device: torch.device,
    ) -> "GroundTruth":
        counts = tuple(map(len, labels))
        image_index = torch.repeat_interleave(
            torch.arange(len(counts)),
            torch.tensor(counts, dtype=torch.int64),
            output_size=sum(counts),
        )
        return cls(
            labels=torch.cat(list(labels)).to(device, non_blocking=True),
            boxes=torch.cat(list(boxes)).to(device, torch.float32, non_blocking=True),
            image_index=image_index.to(device, non_blocking=True),
            counts=counts,
            image_ids=image_ids,
        )

    def class_agnostic(self) -> "GroundTruth":
        """Return the same boxes with label 0."""
        crowds = self.crowds and self.crowds.class_agnostic()
        return replace(self, labels=torch.zeros_like(self.labels), crowds=crowds)


@dataclass(frozen=True)
class StepBatch:
    """A loaded batch with its position in the run: the complete input of a training step."""

    images: Tensor  # [B, 3, H, W] uint8, on the host
    targets: Sequence[Target]  # boxes cxcywh 0..1
    size_hw: tuple[int, int]  # the batch is resized to this size on the device
    epoch: int
    step: int  # within the epoch
    global_step: int
