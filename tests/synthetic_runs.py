"""Create output directories of runs without training, for tests of reports."""

import json

import numpy as np
import torch
from PIL import Image, ImageDraw

from rtdetrv2_pytorch.src.data.annotation_arrays import Annotations, ImageRecord
from rtdetrv2_pytorch.src.data.categories import CategoryTable
from rtdetrv2_pytorch.src.data.metrics.evaluator import CocoEvaluator
from rtdetrv2_pytorch.src.report.report_source import ReportSource

SIZE_WH = (160, 120)
CONFIG = {
    "epoches": 6,
    "eval_spatial_size": [64, 96],
    "optimizer": {"type": "AdamW", "lr": 0.0001},
    "tuning": "/home/somebody/secret/weights.pth",
    "train_dataloader": {"dataset": {"img_folder": "C:\\somebody\\images"}},
}


def make_run(
    folder, *, names=("cat", "dog", "bird"), images=12, background=2, detects=True, seed=0
) -> ReportSource:
    """Create a run with correct, misclassified, missed and false detections.

    Args:
        folder: output directory for images and log.
        names: class names.
        images: number of images with boxes.
        background: number of images without boxes.
        detects: whether there are detections.
        seed: random seed.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    records = [_image(folder, rng, i, len(names), i < images) for i in range(images + background)]
    annotations = Annotations(records, CategoryTable(tuple(range(1, len(names) + 1)), tuple(names)))
    evaluator = CocoEvaluator(annotations=annotations, iou_types=["bbox"])
    for record in records:
        evaluator.update({record.image_id: _detections(rng, record, len(names), detects)})
    evaluator.accumulate()
    evaluator.summarize()
    evaluation = evaluator.result()
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, _log(names, evaluation))))
    return ReportSource(
        folder=folder,
        config=CONFIG,
        evaluation=evaluation,
        annotations=annotations,
        img_folder=folder,
        train_boxes=[50 * (i + 1) for i in range(len(names))],
    )


def _image(folder, rng, number, num_classes, has_boxes) -> ImageRecord:
    count = int(rng.integers(2, 6)) if has_boxes else 0
    corners = np.stack((rng.uniform(0, 110, count), rng.uniform(0, 80, count)), axis=1)
    boxes = np.concatenate((corners, corners + rng.uniform(14, 40, (count, 2))), axis=1).round()
    picture = Image.new("RGB", SIZE_WH, tuple(int(v) for v in rng.integers(60, 160, 3)))
    draw = ImageDraw.Draw(picture)
    for box in boxes:
        draw.ellipse(tuple(box), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    name = f"image {number:02}.png"
    picture.save(folder / name)
    return ImageRecord(
        file_name=name,
        image_id=number + 1,
        size_wh=SIZE_WH,
        boxes_xyxy=boxes,
        labels=rng.integers(0, num_classes, count),
        area=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        iscrowd=np.zeros(count, dtype=np.int64),
    )


def _detections(rng, record, num_classes, detects):
    boxes, labels, scores = [np.empty((0, 4))], [], []
    if detects:
        is_found = rng.uniform(size=len(record.labels)) < 0.85
        boxes.append((record.boxes_xyxy + rng.normal(0, 1.5, record.boxes_xyxy.shape))[is_found])
        labels += [
            int(label) if rng.uniform() < 0.9 else (int(label) + 1) % num_classes
            for label in record.labels[is_found]
        ]
        scores += rng.uniform(0.35, 0.98, int(is_found.sum())).tolist()
        boxes.append(np.array([[5, 5, 40, 40], [90, 60, 130, 100]]))
        labels += [0, num_classes - 1]
        scores += rng.uniform(0.05, 0.55, 2).tolist()
    order = np.argsort(-np.array(scores), kind="stable")
    return {
        "boxes": torch.from_numpy(np.concatenate(boxes)[order]).float(),
        "labels": torch.tensor(labels, dtype=torch.int64)[order],
        "scores": torch.tensor(scores)[order],
    }


def _log(names, evaluation, epochs=6):
    yield {
        "event": "plan", "epochs": epochs, "first_epoch": 0, "steps_per_epoch": 10,
        "batch_size": 4, "num_train_images": 40, "num_val_images": 14,
        "class_names": list(names), "device": "CPU", "precision": "float32",
        "schedule": ["learning rate 0.0001; warm-up 5 steps"], "changes": ["ema.decay: 0.9"],
    }  # fmt: skip
    shares = {"data": 0.1, "forward": 0.3, "backward": 0.4, "evaluation": 0.2}
    for epoch in range(epochs):
        for step in (0, 9):
            yield {"event": "step", "epoch": epoch, "step": step, "lr": 1e-4 / (epoch + 1)}
        part = min((epoch + 1) / 5, 1.0)
        yield {
            "event": "epoch", "epoch": epoch, "train_loss": 9 / (epoch + 1),
            "val_loss": 5 / (epoch + 2), "train_losses": {"loss_vfl": 1.0, "loss_vfl_aux_0": 2.0},
            "AP": part * max(evaluation.stats["AP"], 0), "AP50": part * 0.5, "AP75": None,
            "lr": 1e-4, "train_s": 50.0, "eval_s": 10.0, "step_s": 5.0, "images_per_s": 0.8,
            "skipped_steps": 0, "skipped_images": [], "time_shares": shares, "verdict": "",
        }  # fmt: skip
    yield {"event": "end", "best_epoch": 4, "last_epoch": epochs - 1, "stopped": None}
