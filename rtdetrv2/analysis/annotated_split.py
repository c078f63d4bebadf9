"""Evaluate a detector in any runtime on an annotated split."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rtdetrv2_pytorch.src.data.annotation_arrays import Annotations, ImageRecord
from rtdetrv2_pytorch.src.data.categories import CategoryTable, normalize_id
from rtdetrv2_pytorch.src.data.coco_dataset import parse_coco
from rtdetrv2_pytorch.src.data.findings import Findings
from rtdetrv2_pytorch.src.data.images.decoding import read_rgb
from rtdetrv2_pytorch.src.data.images.preprocess import preprocess
from rtdetrv2_pytorch.src.data.metrics.detection_limit import missed_objects_warning
from rtdetrv2_pytorch.src.data.metrics.evaluator import CocoEvaluator, Evaluation
from rtdetrv2_pytorch.src.data.readers.coco_json import read_categories, read_coco_json
from rtdetrv2_pytorch.src.deploy.model_card import ModelCard
from rtdetrv2_pytorch.src.deploy.runtimes import Runtime
from rtdetrv2_pytorch.src.misc.errors import DatasetError
from rtdetrv2_pytorch.src.misc.text import counted, printable
from rtdetrv2_pytorch.src.structures import DetectionTensors

logger = logging.getLogger(__name__)

_MAX_READERS = 8  # threads that decode images


@dataclass(frozen=True)
class AnnotatedSplit:
    """A COCO split with the classes that a model and its annotations have in common."""

    annotations: Annotations
    img_folder: Path
    unknown_classes: Sequence[str]  # with objects in the annotations, but not of the model


def read_split(ann_file: Path, img_folder: Path, card: ModelCard) -> AnnotatedSplit:
    """Read a COCO file; classes are matched by name, and objects of other classes are skipped.

    Raises:
        DatasetError: if the file is not usable, has no class of the model, or no box.
    """
    content = read_coco_json(ann_file)
    own = read_categories(content, str(ann_file))
    pairs = list(zip(own.ids, own.names, strict=True))
    shared = [(id_, name) for id_, name in pairs if name in card.class_names]
    if not shared:
        raise DatasetError(
            f"{ann_file}: none of its classes {list(own.names[:20])} is a class of the model, "
            f"which has {list(card.class_names[:20])}; use data with the classes of the model"
        )
    ids, names = zip(*shared, strict=True)
    findings = Findings()
    table = CategoryTable(ids, names)
    annotations = parse_coco(content, ann_file, img_folder, findings, table)
    findings.log(str(ann_file))
    if not (annotations.iscrowd == 0).any():
        raise DatasetError(
            f"{ann_file}: none of {counted(len(annotations), 'image')} has a usable box of the "
            "classes of the model; choose another split or label them"
        )
    used = {normalize_id(a.get("category_id")) for a in content.get("annotations") or ()}
    unknown = [name for id_, name in pairs if id_ in used and name not in card.class_names]
    return AnnotatedSplit(annotations, img_folder, unknown)


def evaluate_runtime(
    runtime: Runtime,
    split: AnnotatedSplit,
    *,
    batch_size: int,
    score: float = 0.0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Detect objects in all images of a split and compute COCO metrics.

    Images are read and resized as `DetSolver.val` does, and detections are neither limited by
    thresholds nor clipped, so a checkpoint has the same metrics in both.

    Args:
        runtime: the detector.
        split: see `read_split`.
        batch_size: images per call, at most the maximum of the runtime.
        score: minimum score; detections below it are ignored.
        on_progress: called with the number of images done and of all images.

    Raises:
        DatasetError: if no image can be read.
    """
    annotations, card = split.annotations, runtime.card
    evaluator = CocoEvaluator(annotations=annotations, iou_types=["bbox"])
    label_of = annotations.categories.label_of
    labels = torch.tensor([label_of.get(name, -1) for name in card.class_names])

    def read(record: ImageRecord) -> np.ndarray | None:
        path = split.img_folder / record.file_name
        try:
            return read_rgb(path, record.size_wh, pixel_range=card.pixel_range)
        except DatasetError as error:
            logger.warning("%s; the image is not used", printable(str(error)))
            return None

    done = 0
    size = min(batch_size, runtime.max_batch_size or batch_size)
    for records, pixels in _read_ahead(annotations, read, size):
        known = [(r.image_id, p) for r, p in zip(records, pixels, strict=True) if p is not None]
        if known:
            ids, images = zip(*known, strict=True)
            evaluator.update(dict(zip(ids, _detect(runtime, images, labels, score), strict=True)))
        done += len(records)
        if on_progress is not None:
            on_progress(done, len(annotations))
    if not evaluator.num_images:
        raise DatasetError(f"{split.img_folder}: no image of the split can be read; see the log")
    evaluator.accumulate()
    evaluator.summarize()
    result = evaluator.result()
    most = 0 if result.detections is None else int(result.detections.counts.max(initial=0))
    warning = missed_objects_warning(annotations, most)
    if warning and score == 0:
        logger.warning("%s", warning)
    return result


def _detect(
    runtime: Runtime, images: Sequence[np.ndarray], new_labels: Tensor, score: float
) -> Iterator[DetectionTensors]:
    """Yield detections with the labels of the split; those of other classes are dropped."""
    sizes_wh = torch.tensor([(image.shape[1], image.shape[0]) for image in images])
    batch = preprocess(images, runtime.card.input_size_hw, runtime.device)
    results = (result.cpu() for result in runtime(batch, sizes_wh))
    for found, boxes, scores in zip(*results, strict=True):
        labels = new_labels[found]
        keep = (labels >= 0) & (scores >= score) & (scores > 0)  # 0: removed by NMS in the file
        yield DetectionTensors(labels=labels[keep], boxes=boxes[keep], scores=scores[keep])


def _read_ahead(
    annotations: Annotations, read: Callable[[ImageRecord], np.ndarray | None], size: int
) -> Iterator[tuple[list[ImageRecord], list[np.ndarray | None]]]:
    """Yield batches of records and pixels; the next batch is read during the current one."""
    batches = [range(i, min(i + size, len(annotations))) for i in range(0, len(annotations), size)]
    with ThreadPoolExecutor(min(_MAX_READERS, os.cpu_count() or 1)) as pool:

        def start(places: range) -> tuple[list[ImageRecord], list[Future[Any]]]:
            records = [annotations[place] for place in places]
            return records, [pool.submit(read, record) for record in records]

        coming = start(batches[0])
        for following in [*batches[1:], range(0)]:
            records, futures = coming
            coming = start(following)
            yield records, [future.result() for future in futures]


def coco_results(evaluation: Evaluation, annotations: Annotations) -> list[dict[str, Any]]:
    """Return all detections as entries of a COCO results file: xywh boxes in pixels."""
    table = evaluation.detections
    assert table is not None
    categories = annotations.categories.evaluation_ids
    return [
        {
            "image_id": image_id,
            "category_id": categories[label],
            "bbox": [round(float(v), 2) for v in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(float(score), 5),
        }
        for image_id, part in table.slices().items()
        for (x1, y1, x2, y2), label, score in zip(
            table.boxes[part], table.labels[part].tolist(), table.scores[part], strict=True
        )
    ]
