"""COCO metrics, in total and per class, and the best score thresholds."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ...misc import distributed
from ...misc.errors import extra
from ...misc.resources import paused_garbage_collection
from ...misc.text import counted
from ...structures import DetectionTensors
from ..annotation_arrays import Annotations
from .detection_limit import COCO_LIMIT, detection_limit
from .operating_point import OperatingPoint, best_operating_point, match_boxes

logger = logging.getLogger(__name__)

STAT_NAMES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)
_COLUMNS = 6  # x, y, width, height, score, category id


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class. AP is NaN without boxes of the class in the split."""

    name: str
    ap: float
    ap50: float
    num_boxes: int
    best: OperatingPoint


@dataclass(frozen=True)
class DetectionTable:
    """All detections of a split in flat arrays, grouped by image."""

    image_ids: np.ndarray  # [I] int64
    counts: np.ndarray  # [I] int64, detections of each image
    boxes: np.ndarray  # [N, 4] float32, xyxy pixels of the original image
    scores: np.ndarray  # [N] float32
    labels: np.ndarray  # [N] int64

    def slices(self) -> dict[int, slice]:
        """Return the rows of each image, by image id."""
        ends = np.cumsum(self.counts)
        return {
            int(id_): slice(int(end - count), int(end))
            for id_, count, end in zip(self.image_ids, self.counts, ends, strict=True)
        }


@dataclass(frozen=True)
class Evaluation:
    """Results of an evaluation of a split."""

    # The 12 COCO metrics by STAT_NAMES; -1 without boxes. With another limit than COCO's, AR with
    # this limit, and AP and AP50 with COCO's limit: AP_coco, AP50_coco.
    stats: dict[str, float]
    classes: list[ClassMetrics]
    best: OperatingPoint  # over all classes
    losses: dict[str, float] = field(default_factory=dict)  # validation losses, weighted
    num_images: int = 0
    max_detections: int = COCO_LIMIT  # per class and image; see `detection_limit`
    detections: DetectionTable | None = field(default=None, repr=False, compare=False)

    @property
    def loss(self) -> float:
        """Validation loss: the sum of the weighted terms."""
        return sum(self.losses.values())

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for logs and checkpoints."""
        return {
            **self.stats,
            "val_loss": self.loss,
            "val_losses": dict(self.losses),
            "num_images": self.num_images,
            "max_detections": self.max_detections,
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

    Only images passed to `update` are evaluated, so unreadable images do not reduce recall. Where
    an image has more than 100 objects of a class, all detections count (`detection_limit`).

    Args:
        annotations: ground truth.
        iou_types: only "bbox".
        lvis_style: compute metrics of LVIS.
        ranges: area ranges in square pixels by name.
        labels_are_category_ids: whether detections have category ids instead of labels, as the
            postprocessor returns with `remap_mscoco_category`.
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
        self._coco_gt: Any = None
        self.coco_eval: dict[str, Any] = {}
        self.cleanup()

    def cleanup(self) -> None:
        """Remove all detections."""
        self._image_ids: list[int] = []
        self._rows: list[np.ndarray] = []

    def update(self, predictions: Mapping[int, DetectionTensors]) -> None:
        """Add detections by image id; boxes are xyxy in pixels.

        Raises:
            ValueError: naming labels or category ids that the ground truth does not have.
        """
        for image_id, detections in predictions.items():
            self._image_ids.append(int(image_id))
            boxes = detections["boxes"].detach().float().cpu().numpy()
            labels = detections["labels"].detach().cpu().numpy()
            rows = np.empty((len(boxes), _COLUMNS))
            rows[:, 0:2] = boxes[:, :2]
            rows[:, 2:4] = boxes[:, 2:] - boxes[:, :2]
            rows[:, 4] = detections["scores"].detach().float().cpu().numpy()
            rows[:, 5] = self._checked_ids(labels, image_id)
            self._rows.append(rows)

    def _checked_ids(self, labels: np.ndarray, image_id: int) -> np.ndarray:
        """Return the category ids of labels."""
        if self._labels_are_category_ids:
            known, what = self._category_ids, "category ids"
        else:
            known, what = np.arange(len(self._category_ids)), "labels"
        unknown = np.setdiff1d(labels, known)
        if len(unknown):
            raise ValueError(
                f"image {image_id}: detections have the {what} {unknown[:5].tolist()}, but the "
                f"ground truth has {counted(len(known), 'class')} with the {what} {known.min()} to "
                f"{known.max()}; evaluate it with the classes of the detector"
            )
        return labels if self._labels_are_category_ids else self._category_ids[labels]

    @property
    def num_images(self) -> int:
        """Number of images passed to `update`."""
        return len(self._image_ids)

    def synchronize_between_processes(self) -> None:
        """Gather the detections of all ranks on every rank; each image counts once."""
        parts = distributed.all_gather_objects((self._image_ids, self._rows))
        by_image: dict[int, np.ndarray] = {}
        for image_ids, rows in parts:
            by_image.update(zip(image_ids, rows, strict=True))
        self._image_ids = sorted(by_image)  # the same order for any number of ranks
        self._rows = [by_image[image_id] for image_id in self._image_ids]

    @paused_garbage_collection()
    def accumulate(self) -> None:
        """Match detections with ground truth at all IoU thresholds."""
        with extra("train"):
            import faster_coco_eval as coco
            from faster_coco_eval.core import faster_eval_api as api
        if self._coco_gt is None:
            self._coco_gt = coco.COCO(self.annotations.to_coco())
        numbers = (
            self.annotations.image_ids.tolist(),
            self.annotations.evaluation_image_ids.tolist(),
        )
        number_of = dict(zip(*numbers, strict=True))
        segmentation: list[float] = []  # shared; without it the library creates one per box
        detections = [
            {
                "image_id": number_of[image_id],
                "bbox": row[:4],
                "score": row[4],
                "category_id": int(row[5]),
                "segmentation": segmentation,
            }
            for image_id, rows in zip(self._image_ids, self._rows, strict=True)
            for row in rows.tolist()
        ]
        coco_eval = api.COCOeval_faster(
            self._coco_gt,
            self._coco_gt.loadRes(detections),
            "bbox",
            ranges=self.ranges,
            lvis_style=self.lvis_style,
            print_function=logger.debug,
        )
        coco_eval.params.imgIds = sorted(number_of[i] for i in self._image_ids)
        limit = self._detection_limit()
        if limit != COCO_LIMIT:
            coco_eval.params.maxDets = [*coco_eval.params.maxDets, limit]
        coco_eval.evaluate()
        coco_eval.accumulate()
        self.coco_eval["bbox"] = coco_eval

    def _detection_limit(self) -> int:
        most_detections = max(map(len, self._rows), default=0)
        most_objects = self.annotations.most_objects(of_one_class=True)
        return detection_limit(most_objects, most_detections)

    def summarize(self) -> None:
        """Compute the metrics: `coco_eval["bbox"].stats`."""
        self.coco_eval["bbox"].summarize()

    def result(self) -> Evaluation:
        """Return all results; call after `summarize`."""
        coco_eval = self.coco_eval["bbox"]
        precision = coco_eval.eval["precision"]  # [IoU, recall, class, area, max detections]
        scores, detected_ids, is_hit = self._matches()
        num_boxes = self._boxes_per_class()
        classes = []
        for label, category_id in enumerate(self._category_ids):
            mine = detected_ids == category_id
            place = coco_eval.params.catIds.index(category_id)
            classes.append(
                ClassMetrics(
                    name=self.annotations.categories.names[label],
                    ap=_mean_precision(precision[:, :, place, 0, -1]),
                    ap50=_mean_precision(precision[0, :, place, 0, -1]),
                    num_boxes=int(num_boxes[label]),
                    best=best_operating_point(scores[mine], is_hit[mine], int(num_boxes[label])),
                )
            )
        return Evaluation(
            stats=_named(coco_eval),
            classes=classes,
            best=best_operating_point(scores, is_hit, int(num_boxes.sum())),
            num_images=len(self._image_ids),
            max_detections=int(coco_eval.params.maxDets[-1]),
            detections=self._detections(),
        )

    def _detections(self) -> DetectionTable:
        rows = np.concatenate([np.empty((0, _COLUMNS)), *self._rows])
        label_of = {id_: label for label, id_ in enumerate(self._category_ids.tolist())}
        ids, places = np.unique(rows[:, 5], return_inverse=True)
        labels = np.array([label_of[int(id_)] for id_ in ids], dtype=np.int64)[places]
        return DetectionTable(
            image_ids=np.array(self._image_ids, dtype=np.int64),
            counts=np.array([len(each) for each in self._rows], dtype=np.int64),
            boxes=_corners(rows).astype(np.float32),
            scores=rows[:, 4].astype(np.float32),
            labels=labels,
        )

    def _matches(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return scores, category ids and whether they match of detections that count: [N] each."""
        place = {int(id_): i for i, id_ in enumerate(self.annotations.image_ids)}
        parts = [(np.empty(0), np.empty(0), np.empty(0, dtype=bool))]
        for image_id, rows in zip(self._image_ids, self._rows, strict=True):
            truth = self.annotations[place[image_id]]
            found, counts = match_boxes(
                _corners(rows),
                rows[:, 4],
                rows[:, 5],
                truth.boxes_xyxy,
                self._category_ids[truth.labels],
                truth.iscrowd > 0,
            )
            parts.append((rows[counts, 4], rows[counts, 5], found[counts] >= 0))
        scores, labels, hits = (np.concatenate(column) for column in zip(*parts, strict=True))
        return scores, labels, hits

    def _boxes_per_class(self) -> np.ndarray:
        """Return the number of boxes per class in the evaluated images, without crowds: [K]."""
        annotations = self.annotations
        owners = np.repeat(annotations.image_ids, annotations.boxes_per_image())
        counted = np.isin(owners, self._image_ids) & (annotations.iscrowd == 0)
        return np.bincount(annotations.labels[counted], minlength=len(self._category_ids))


def _corners(rows: np.ndarray) -> np.ndarray:
    """Return the boxes of detections, [N, 4] xyxy."""
    return np.concatenate((rows[:, :2], rows[:, :2] + rows[:, 2:4]), axis=1)


def _named(coco_eval: Any) -> dict[str, float]:
    """Name the metrics, whose positions depend on the number of area ranges."""
    ranges = coco_eval.params.areaRngLbl[1:]  # after "all"
    names = ["AP", "AP50", "AP75", *(f"AP_{r}" for r in ranges)]
    names += [f"AR_{n}" for n in coco_eval.params.maxDets] + [f"AR_{r}" for r in ranges]
    named = {name: float(v) for name, v in zip(names, coco_eval.stats, strict=False)}
    limits = list(coco_eval.params.maxDets)
    if limits[-1] != COCO_LIMIT:
        capped = coco_eval.eval["precision"][:, :, :, 0, limits.index(COCO_LIMIT)]
        named |= {"AP_coco": _mean_precision(capped), "AP50_coco": _mean_precision(capped[0])}
    return named


def _mean_precision(precision: np.ndarray) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if len(known) else float("nan")
