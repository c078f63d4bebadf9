"""COCO metrics, per class too, and the score thresholds at which a detector is best used."""

import contextlib
import gc
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from faster_coco_eval import COCO
from faster_coco_eval.core.faster_eval_api import COCOeval_faster

from ...misc import distributed
from ...structures import Detections
from ..annotations import Annotations
from .operating_point import OperatingPoint, best_operating_point, match_boxes

logger = logging.getLogger(__name__)

STAT_NAMES = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR_1",
    "AR_10",
    "AR_100",
    "AR_small",
    "AR_medium",
    "AR_large",
)
_COLUMNS = 7  # image id, x, y, width, height, score, category id


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class. AP is NaN for a class without boxes in the split."""

    name: str
    ap: float
    ap50: float
    num_boxes: int
    best: OperatingPoint


@dataclass(frozen=True)
class Found:
    """All detections of a split, in flat arrays: those of an image lie together."""

    image_ids: np.ndarray  # [I] int64
    counts: np.ndarray  # [I] int64, detections of each image
    boxes: np.ndarray  # [N, 4] float32, xyxy pixels of the original image
    scores: np.ndarray  # [N] float32
    labels: np.ndarray  # [N] int64

    def slices(self) -> dict[int, slice]:
        """Where the detections of an image lie, by its id."""
        ends = np.cumsum(self.counts)
        return {
            int(id_): slice(int(end - count), int(end))
            for id_, count, end in zip(self.image_ids, self.counts, ends, strict=True)
        }


@dataclass(frozen=True)
class Evaluation:
    """What one pass over a split told."""

    stats: dict[str, float]  # the 12 COCO numbers by STAT_NAMES; -1 where nothing applies
    classes: list[ClassMetrics]
    best: OperatingPoint  # over all classes
    losses: dict[str, float] = field(default_factory=dict)  # validation losses, weighted
    num_images: int = 0
    found: Found | None = field(default=None, repr=False, compare=False)  # what was measured

    @property
    def loss(self) -> float:
        """Validation loss: the sum of the weighted terms."""
        return sum(self.losses.values())

    def as_dict(self) -> dict[str, Any]:
        """Plain values for logs and checkpoints."""
        return {
            **self.stats,
            "val_loss": self.loss,
            "val_losses": dict(self.losses),
            "num_images": self.num_images,
            "best_threshold": self.best.threshold,
            "best_f1": self.best.f1,
            "per_class": {
                c.name: {
                    "AP": c.ap,
                    "AP50": c.ap50,
                    "boxes": c.num_boxes,
                    "best_threshold": c.best.threshold,
                    "best_f1": c.best.f1,
                }
                for c in self.classes
            },
        }


class CocoEvaluator:
    """Collects detections of a split and computes COCO metrics with faster-coco-eval.

    Only images that were given to `update` count, so that an image that cannot be read is not
    held against the model.

    Args:
        annotations: ground truth.
        iou_types: only "bbox".
        lvis_style: metrics of LVIS.
        ranges: area ranges in square pixels by name.
        labels_are_category_ids: whether detections carry category ids of the file instead of
            labels, as the postprocessor gives them with `remap_mscoco_category`.
    """

    def __init__(
        self,
        *,
        annotations: Annotations,
        iou_types: Sequence[Literal["bbox"]],
        lvis_style: bool = False,
        ranges: Mapping[str, tuple[float, float]] | None = None,
        labels_are_category_ids: bool = False,
    ) -> None:
        self.annotations = annotations
        self.iou_types = list(iou_types)
        self.lvis_style = lvis_style
        self.ranges = {k: list(v) for k, v in ranges.items()} if ranges else None
        self._category_ids = np.array(annotations.categories.evaluation_ids)
        self._labels_are_category_ids = labels_are_category_ids
        self._coco_gt: COCO | None = None
        self.coco_eval: dict[str, COCOeval_faster] = {}
        self.cleanup()

    def cleanup(self) -> None:
        """Forget all detections."""
        self._image_ids: list[int] = []
        self._rows: list[np.ndarray] = []

    def update(self, predictions: Mapping[int, Detections]) -> None:
        """Take the detections of some images, by image id; boxes xyxy in pixels."""
        for image_id, detections in predictions.items():
            self._image_ids.append(int(image_id))
            boxes = detections["boxes"].detach().float().cpu().numpy()
            labels = detections["labels"].detach().cpu().numpy()
            rows = np.empty((len(boxes), _COLUMNS))
            rows[:, 0] = image_id
            rows[:, 1:3] = boxes[:, :2]
            rows[:, 3:5] = boxes[:, 2:] - boxes[:, :2]
            rows[:, 5] = detections["scores"].detach().float().cpu().numpy()
            rows[:, 6] = labels if self._labels_are_category_ids else self._category_ids[labels]
            self._rows.append(rows)

    @property
    def num_images(self) -> int:
        """Images that were given to `update`."""
        return len(self._image_ids)

    def synchronize_between_processes(self) -> None:
        """Bring the detections of all ranks together, on every rank; each image counts once."""
        parts = distributed.all_gather_objects((self._image_ids, self._rows))
        by_image: dict[int, np.ndarray] = {}
        for image_ids, rows in parts:
            by_image.update(zip(image_ids, rows, strict=True))
        self._image_ids = sorted(by_image)  # one order, however many ranks there were
        self._rows = [by_image[image_id] for image_id in self._image_ids]

    def accumulate(self) -> None:
        """Match detections with ground truth at all IoU thresholds."""
        with _no_garbage_collection():
            self._accumulate()

    def _accumulate(self) -> None:
        if self._coco_gt is None:
            self._coco_gt = COCO(self.annotations.to_coco())
        rows = np.concatenate([np.empty((0, _COLUMNS)), *self._rows])
        no_outline: list[float] = []  # one for all, or the library makes one of each box
        detections = [
            {
                "image_id": int(row[0]),
                "bbox": row[1:5],
                "score": row[5],
                "category_id": int(row[6]),
                "segmentation": no_outline,
            }
            for row in rows.tolist()
        ]
        for iou_type in self.iou_types:
            coco_eval = COCOeval_faster(
                self._coco_gt,
                self._coco_gt.loadRes(detections),
                iou_type,
                ranges=self.ranges,
                lvis_style=self.lvis_style,
                print_function=logger.debug,
            )
            coco_eval.params.imgIds = sorted(self._image_ids)
            coco_eval.evaluate()
            coco_eval.accumulate()
            self.coco_eval[iou_type] = coco_eval

    def summarize(self) -> None:
        """Compute the 12 numbers: `coco_eval["bbox"].stats`."""
        for coco_eval in self.coco_eval.values():
            coco_eval.summarize()

    def result(self) -> Evaluation:
        """Everything that was measured; call after `summarize`."""
        coco_eval = self.coco_eval["bbox"]
        precision = coco_eval.eval["precision"]  # [IoU, recall, class, area, max detections]
        scores, found_ids, is_hit = self._hits()
        wanted = self._boxes_to_find()
        classes = []
        for label, category_id in enumerate(self._category_ids):
            mine = found_ids == category_id
            place = coco_eval.params.catIds.index(category_id)
            classes.append(
                ClassMetrics(
                    name=self.annotations.categories.names[label],
                    ap=_mean_precision(precision[:, :, place, 0, -1]),
                    ap50=_mean_precision(precision[0, :, place, 0, -1]),
                    num_boxes=int(wanted[label]),
                    best=best_operating_point(scores[mine], is_hit[mine], int(wanted[label])),
                )
            )
        return Evaluation(
            stats=_named(coco_eval),
            classes=classes,
            best=best_operating_point(scores, is_hit, int(wanted.sum())),
            num_images=len(self._image_ids),
            found=self._found(),
        )

    def _found(self) -> Found:
        rows = np.concatenate([np.empty((0, _COLUMNS)), *self._rows])
        label_of = {id_: label for label, id_ in enumerate(self._category_ids.tolist())}
        ids, places = np.unique(rows[:, 6], return_inverse=True)
        labels = np.array([label_of[int(id_)] for id_ in ids], dtype=np.int64)[places]
        return Found(
            image_ids=np.array(self._image_ids, dtype=np.int64),
            counts=np.array([len(each) for each in self._rows], dtype=np.int64),
            boxes=np.concatenate((rows[:, 1:3], rows[:, 1:3] + rows[:, 3:5]), 1).astype(np.float32),
            scores=rows[:, 5].astype(np.float32),
            labels=labels,
        )

    def _hits(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Match all detections: scores, category ids and hits of those that count, [N] each."""
        place = {int(id_): i for i, id_ in enumerate(self.annotations.image_ids)}
        parts = [(np.empty(0), np.empty(0), np.empty(0, dtype=bool))]
        for image_id, rows in zip(self._image_ids, self._rows, strict=True):
            truth = self.annotations[place[image_id]]
            corners = np.concatenate((rows[:, 1:3], rows[:, 1:3] + rows[:, 3:5]), axis=1)
            found, counts = match_boxes(
                corners,
                rows[:, 5],
                rows[:, 6],
                truth.boxes_xyxy,
                self._category_ids[truth.labels],
                truth.iscrowd > 0,
            )
            parts.append((rows[counts, 5], rows[counts, 6], found[counts] >= 0))
        scores, labels, hits = (np.concatenate(column) for column in zip(*parts, strict=True))
        return scores, labels, hits

    def _boxes_to_find(self) -> np.ndarray:
        """[K] boxes of each class in the images that were seen, without crowds."""
        annotations = self.annotations
        owners = np.repeat(annotations.image_ids, annotations.boxes_per_image())
        counted = np.isin(owners, self._image_ids) & (annotations.iscrowd == 0)
        return np.bincount(annotations.labels[counted], minlength=len(self._category_ids))


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Leave cycles alone: a dict per detection would set off scans of all that there is.

    They took half of the time; the dicts are in no cycle and go when nobody needs them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _named(coco_eval: COCOeval_faster) -> dict[str, float]:
    """Names for the numbers, whose places depend on how many area ranges there are."""
    ranges = coco_eval.params.areaRngLbl[1:]  # after "all"
    names = ["AP", "AP50", "AP75", *(f"AP_{r}" for r in ranges)]
    names += [f"AR_{n}" for n in coco_eval.params.maxDets] + [f"AR_{r}" for r in ranges]
    return {name: float(v) for name, v in zip(names, coco_eval.stats, strict=False)}


def _mean_precision(precision: np.ndarray) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if len(known) else float("nan")
