"""The vocabulary of the engine: what is passed between data, model, losses and results.

Shape letters, the same everywhere: B batch, C channels, H W height and width, L levels, S tokens
of all levels, Q queries, K classes, D hidden, M heads, P points, N ground-truth boxes of one
image, T ground-truth boxes of the whole batch, A anchors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor


class Target(TypedDict):
    """Ground truth of one image, as the datasets give it and the losses take it."""

    boxes: Tensor  # [N, 4] float32: training cxcywh 0..1; validation xyxy pixels as resized
    labels: Tensor  # [N] int64, 0..K-1
    image_id: Tensor  # [1] int64
    area: Tensor  # [N] float32, square pixels of the original image
    iscrowd: Tensor  # [N] int64
    orig_size: Tensor  # [2] int64, (width, height) of the original image
    idx: Tensor  # [1] int64, place in the dataset


class LayerOutput(TypedDict):
    """What one decoder layer, or the encoder's selection, predicts."""

    pred_logits: Tensor  # [B, Q, K] before the sigmoid
    pred_boxes: Tensor  # [B, Q, 4] cxcywh 0..1


class DenoisingMeta(TypedDict):
    """How the denoising queries are laid out."""

    dn_positive_idx: list[Tensor]  # per image: indices of the queries that are its boxes
    dn_num_group: int
    dn_num_split: list[int]  # [denoising queries, matching queries]


class DecoderOutput(LayerOutput, total=False):
    """Output of the model. Evaluation has only the two entries of `LayerOutput`."""

    aux_outputs: list[LayerOutput]  # the layers before the last
    enc_aux_outputs: list[LayerOutput]  # the selected anchors
    enc_meta: dict[str, bool]
    dn_aux_outputs: list[LayerOutput]  # all layers, denoising queries only
    dn_meta: DenoisingMeta


class Detections(TypedDict):
    """Detections of one image, or with a leading B of a batch; best score first."""

    labels: Tensor  # [Q] int64
    boxes: Tensor  # [Q, 4] xyxy pixels of the original image
    scores: Tensor  # [Q] 0..1


@dataclass(frozen=True)
class GroundTruth:
    """All boxes of a batch in one flat table, so that images of any count are handled at once."""

    labels: Tensor  # [T] int64
    boxes: Tensor  # [T, 4] cxcywh 0..1, float32
    image_index: Tensor  # [T] int64, place of the box's image in the batch
    counts: tuple[int, ...]  # boxes per image; known on the host, so no device is waited for
    image_ids: tuple[Tensor, ...]  # one [1] tensor per image, read only for error messages

    @classmethod
    def from_targets(cls, targets: Sequence[Target], device: torch.device) -> "GroundTruth":
        """Flatten the targets of a batch; at least one image."""
        counts = tuple(len(t["labels"]) for t in targets)
        image_index = torch.repeat_interleave(
            torch.arange(len(counts)),
            torch.tensor(counts, dtype=torch.int64),
            output_size=sum(counts),
        )
        return cls(
            labels=torch.cat([t["labels"] for t in targets]).to(device, non_blocking=True),
            boxes=torch.cat([t["boxes"] for t in targets]).to(
                device, torch.float32, non_blocking=True
            ),
            image_index=image_index.to(device, non_blocking=True),
            counts=counts,
            image_ids=tuple(t["image_id"] for t in targets if "image_id" in t),
        )


@dataclass(frozen=True)
class StepBatch:
    """A loaded batch with its position in the run: the complete input of a training step."""

    images: Tensor  # [B, 3, H, W] uint8, on the host
    targets: Sequence[Target]  # boxes cxcywh 0..1
    size_hw: tuple[int, int]  # the batch is resized to this size on the device
    epoch: int
    step: int  # within the epoch
    global_step: int
