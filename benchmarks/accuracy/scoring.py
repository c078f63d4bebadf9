"""AP of checkpoints and of predictions from other packages, by this package's evaluator."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faster_coco_eval
import numpy as np
import torch
from faster_coco_eval.core.faster_eval_api import COCOeval_faster

from rtdetrv2.analysis.annotated_split import coco_results, evaluate_runtime, read_split
from rtdetrv2.analysis.opening import open_model
from rtdetrv2_pytorch.src.data.coco_dataset import parse_coco
from rtdetrv2_pytorch.src.data.findings import Findings
from rtdetrv2_pytorch.src.data.metrics.evaluator import CocoEvaluator, Evaluation
from rtdetrv2_pytorch.src.data.readers.coco_json import read_categories, read_coco_json
from rtdetrv2_pytorch.src.data.splits import Split
from rtdetrv2_pytorch.src.structures import DetectionTensors

Rows = Sequence[dict[str, Any]]  # entries of a COCO results file


def score_predictions(split: Split, rows: Rows) -> Evaluation:
    """Evaluate a COCO results file as a training evaluates its detections.

    Args:
        split: with its annotations.
        rows: detections with image_id, category_id, bbox (xywh) and score.
    """
    content = read_coco_json(split.ann_file)
    table = read_categories(content, str(split.ann_file))
    annotations = parse_coco(content, split.ann_file, split.img_folder, Findings(), table)
    evaluator = CocoEvaluator(annotations=annotations, iou_types=["bbox"])
    label_of = {id_: label for label, id_ in enumerate(table.ids)}
    by_image = defaultdict(list)
    for row in rows:
        by_image[row["image_id"]].append(row)
    for image_id in annotations.image_ids.tolist():
        found = by_image[image_id]
        xywh = torch.tensor([row["bbox"] for row in found], dtype=torch.float32).reshape(-1, 4)
        detections = DetectionTensors(
            labels=torch.tensor([label_of[row["category_id"]] for row in found], dtype=torch.int64),
            boxes=torch.cat((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), dim=1),
            scores=torch.tensor([row["score"] for row in found], dtype=torch.float32),
        )
        evaluator.update({image_id: detections})
    evaluator.accumulate()
    evaluator.summarize()
    return evaluator.result()


def evaluate_checkpoint(checkpoint: Path, split: Split, device: str) -> tuple[Evaluation, Rows]:
    """Evaluate a checkpoint on a split; return the evaluation and all detections."""
    runtime = open_model(checkpoint, device=device)
    annotated = read_split(split.ann_file, split.img_folder, runtime.card)
    evaluation = evaluate_runtime(runtime, annotated, batch_size=8)
    return evaluation, coco_results(evaluation, annotated.annotations)


def average_precision(ann_file: Path, rows: Rows, max_detections: int) -> float:
    """Return the COCO AP of detections with a limit per class and image."""
    truth = faster_coco_eval.COCO(str(ann_file))
    found = COCOeval_faster(truth, truth.loadRes(list(rows)), "bbox", print_function=lambda _: None)
    found.params.maxDets = [1, 10, max_detections]
    found.evaluate()
    found.accumulate()
    precision = found.eval["precision"][:, :, :, 0, -1]
    return round(float(np.mean(precision[precision > -1])), 4)
