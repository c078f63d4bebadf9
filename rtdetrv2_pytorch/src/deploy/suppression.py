"""Non-maximum suppression (NMS) within classes, for any runtime or inside an ONNX file.

In theory RT-DETR needs no NMS, because every object has one query. In practice a few objects are
detected twice.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..misc.boxes import iou_and_giou
from ..misc.errors import extra
from ..structures import DetectionTensors

if TYPE_CHECKING:
    import onnx

# The outputs have a fixed size: suppressed detections move to the end and get score 0. Classes are
# separated by an offset, as in torchvision.
_GRAPH = """
<ir_version: {ir}, opset_import: ["": {opset}]>
suppression (int64[N, Q] all_labels, float[N, Q, 4] all_boxes, float[N, Q] all_scores)
    => (int64[N, Q] labels, float[N, Q, 4] boxes, float[N, Q] scores)
<float zero = {{0.0}}, float one = {{1.0}}, float iou = {{{iou}}},
 int64[1] last = {{-1}}, int64[1] second = {{1}}, int64[1] most = {{{most}}},
 int64[2] outer = {{0, 2}}>
{{
    highest = ReduceMax <keepdims = 0> (all_boxes)
    lowest = ReduceMin <keepdims = 0> (all_boxes)
    range = Sub (highest, lowest)
    region = Add (range, one)
    places = Cast <to = 1> (all_labels)
    offsets = Mul (places, region)
    columns = Unsqueeze (offsets, last)
    moved = Add (all_boxes, columns)
    one_class = Unsqueeze (all_scores, second)
    chosen = NonMaxSuppression (moved, one_class, most, iou)
    where = Gather <axis = 1> (chosen, outer)
    count = Shape <start = 0, end = 1> (where)
    ones = Expand (one, count)
    shape = Shape (all_scores)
    nothing = Expand (zero, shape)
    kept = ScatterND (nothing, where, ones)
    kept_scores = Mul (all_scores, kept)
    scores, order = TopK <axis = 1> (kept_scores, most)
    labels = GatherElements <axis = 1> (all_labels, order)
    rows = Unsqueeze (order, last)
    four = Concat <axis = 2> (rows, rows, rows, rows)
    boxes = GatherElements <axis = 1> (all_boxes, four)
}}
"""


def suppress(detections: DetectionTensors, iou: float) -> DetectionTensors:
    """Remove detections whose IoU with a higher-scoring one of their class exceeds `iou`."""
    order = detections["scores"].argsort(descending=True, stable=True)
    boxes, labels = detections["boxes"][order], detections["labels"][order]
    overlaps, _ = iou_and_giou(boxes[:, None], boxes)
    suppresses = (overlaps > iou) & (labels[:, None] == labels)
    kept = np.ones(len(order), bool)
    for place, suppressed in enumerate(suppresses.cpu().numpy()):
        if kept[place]:
            kept[place + 1 :] &= ~suppressed[place + 1 :]
    return _chosen(detections, order[torch.from_numpy(kept).to(order.device)])


def add_suppression(model: "onnx.ModelProto", iou: float, num_detections: int) -> "onnx.ModelProto":
    """Append NMS to an exported detector; output names and shapes do not change.

    Args:
        model: with outputs labels, boxes, scores.
        iou: IoU above which the lower-scoring detection of a class is removed.
        num_detections: size of the outputs.

    Returns:
        A new model; removed detections come last, with score 0.
    """
    with extra("onnx"):
        from onnx import compose, parser

    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    text = _GRAPH.format(ir=model.ir_version, opset=opset, iou=iou, most=num_detections)
    names = ("labels", "boxes", "scores")
    renamed = compose.add_prefix(
        model, "all_", rename_inputs=False, rename_initializers=False, rename_value_infos=False
    )
    return compose.merge_models(
        renamed,
        parser.parse_model(text),
        io_map=[(f"all_{name}", f"all_{name}") for name in names],
        producer_name=model.producer_name,
    )


def set_output_sizes(model: "onnx.ModelProto", num_detections: int) -> None:
    """Set the sizes of the three outputs, where an exporter left symbolic names."""
    with extra("onnx"):
        from onnx import helper

    pairs: tuple[str | int, ...] = ("N", num_detections)
    shapes = {"labels": pairs, "scores": pairs, "boxes": (*pairs, 4)}
    for output in model.graph.output:
        element = output.type.tensor_type.elem_type
        output.CopyFrom(helper.make_tensor_value_info(output.name, element, shapes[output.name]))


def above(detections: DetectionTensors, thresholds: Tensor) -> DetectionTensors:
    """Keep detections with at least the threshold of their label; `thresholds` is [K].

    Detections with score 0, which NMS in an ONNX file removed, are never kept.
    """
    scores = detections["scores"]
    return _chosen(detections, (scores >= thresholds[detections["labels"]]) & (scores > 0))


def _chosen(detections: DetectionTensors, which: Tensor) -> DetectionTensors:
    """Select detections by indices or mask."""
    return DetectionTensors(
        labels=detections["labels"][which],
        boxes=detections["boxes"][which],
        scores=detections["scores"][which],
    )
