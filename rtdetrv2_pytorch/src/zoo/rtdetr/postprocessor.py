"""Convert decoder outputs to detections in pixels of the original image."""

import torch
from torch import Tensor, nn

from ...misc.boxes import cxcywh_to_xyxy
from ...misc.coco_categories import COCO_CATEGORY_IDS
from ...misc.ranges import PositiveInt
from ...structures import DetectionTensors, LayerOutput


class RTDETRPostProcessor(nn.Module):
    """Ranks (query, class) pairs and scales their boxes to the original image.

    Args:
        num_classes: classes (K).
        use_focal_loss: sigmoid scores, and a query may answer for several classes; else softmax
            with a last background column, and one class per query.
        num_top_queries: detections to keep; fewer where there are fewer candidates.
        remap_mscoco_category: give COCO's category ids (1..90) instead of labels (0..79).
    """

    def __init__(
        self,
        *,
        num_classes: int = 80,
        use_focal_loss: bool = True,
        num_top_queries: PositiveInt = 300,
        remap_mscoco_category: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.use_focal_loss = use_focal_loss
        self.num_top_queries = num_top_queries
        self.remap_mscoco_category = remap_mscoco_category
        self.deploy_mode = False

    def forward(
        self, outputs: LayerOutput, orig_target_sizes: Tensor
    ) -> list[DetectionTensors] | tuple[Tensor, Tensor, Tensor]:
        """Convert predictions to detections in descending order of scores, without clipping boxes.

        Args:
            outputs: of the model; two entries are read, see `LayerOutput`.
            orig_target_sizes: [B, 2] as (width, height) of the original images. This published ONNX
                input is the only size that is not (height, width).

        Returns:
            One `DetectionTensors` per image; after `deploy()` the batched tensors labels [B, N],
            boxes [B, N, 4], scores [B, N], labels never remapped.
        """
        logits, boxes = outputs["pred_logits"].float(), outputs["pred_boxes"].float()
        boxes = cxcywh_to_xyxy(boxes) * orig_target_sizes.repeat(1, 2)[:, None]
        if self.use_focal_loss:
            flat = logits.sigmoid().flatten(1)
            scores, index = torch.topk(flat, min(self.num_top_queries, flat.shape[1]), dim=-1)
            num_classes = logits.shape[-1]
            labels, query = index % num_classes, index // num_classes
        else:
            best, labels = logits.softmax(-1)[..., :-1].max(-1)
            scores, query = torch.topk(best, min(self.num_top_queries, best.shape[1]), dim=-1)
            labels = labels.gather(1, query)
        boxes = boxes.gather(1, query[..., None].expand(-1, -1, 4))

        if self.deploy_mode:
            return labels, boxes, scores
        if self.remap_mscoco_category:
            labels = torch.tensor(COCO_CATEGORY_IDS, device=labels.device)[labels]
        return [
            DetectionTensors(labels=label, boxes=box, scores=score)
            for label, box, score in zip(labels, boxes, scores, strict=True)
        ]

    def deploy(self) -> "RTDETRPostProcessor":
        """Switch to batched tensors as output."""
        self.eval()
        self.deploy_mode = True
        return self
