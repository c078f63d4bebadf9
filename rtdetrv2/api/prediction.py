"""Detect objects in the images of a source."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rtdetrv2_pytorch.src.deploy.predictor import Predictor, fraction
from rtdetrv2_pytorch.src.misc.errors import ConfigError, DatasetError

from .class_names import labels_of
from .detections import Detections
from .sources import ImageSet, PredictedImage

logger = logging.getLogger(__name__)

Skip = Callable[[DatasetError], None]


@dataclass(frozen=True, kw_only=True)
class PredictionOptions:
    """Which detections to keep.

    Attributes:
        score: lowest score, 0 to 1; "auto" uses the threshold with the best F1 of each class.
        nms_iou: IoU above which the lower-scoring detection of a class is removed; None: no NMS.
        classes: names or labels; None keeps all.
    """

    score: float | Literal["auto"] = 0.5
    nms_iou: float | None = None
    classes: str | int | Sequence[str | int] | None = None

    def check(self, predictor: Predictor) -> None:
        """Check the values for a model.

        Raises:
            ConfigError: if a value is invalid or a class is unknown.
            CheckpointError: for "auto" with a model without measured thresholds.
        """
        card = predictor.runtime.card
        if isinstance(self.score, str) and self.score == "auto":
            card.thresholds()
        else:
            fraction("score", self.score, 'or "auto"')
        if self.nms_iou is not None and fraction("nms_iou", self.nms_iou, "or None") == 0:
            raise ConfigError("nms_iou = 0: must be above 0 and at most 1, or None")
        if self.classes is not None:
            labels_of(self.classes, card.class_names)


def detect(
    predictor: Predictor, images: ImageSet, options: PredictionOptions, *, skip: Skip | None = None
) -> Iterator[tuple[PredictedImage, Detections]]:
    """Detect objects; yields the results in the order of the images.

    Images of a folder that cannot be read are skipped.

    Args:
        predictor: loaded model.
        images: of the source; read in batches, one by one if their number is unknown.
        options: checked ones.
        skip: called with the error of any image that cannot be read, instead.

    Raises:
        DatasetError: without `skip`, if an image that the caller gave itself cannot be read.
        ConfigError: if an object is not an image.
    """
    size = predictor.batch_size if images.count else 1
    for batch in _batches(images, size):
        readable = [pair for image in batch if (pair := _read(image, predictor, skip))]
        found, _ = predictor.predict(
            [pixels for _, pixels in readable], options.score, options.nms_iou
        )
        for tensors, (image, pixels) in zip(found, readable, strict=True):
            one = Detections.from_tensors(
                tensors,
                class_names=predictor.runtime.card.class_names,
                size_hw=pixels.shape[:2],
                name=image.name,
                path=image.path,
                pixels=None if image.path else pixels,
                pixel_range=predictor.runtime.card.pixel_range,
            )
            yield image, one if options.classes is None else one.filter(classes=options.classes)


def _batches(images: ImageSet, size: int) -> Iterator[list[PredictedImage]]:
    batch: list[PredictedImage] = []
    for image in images.images:
        batch.append(image)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _read(
    image: PredictedImage, predictor: Predictor, skip: Skip | None
) -> tuple[PredictedImage, np.ndarray] | None:
    try:
        return image, image.read(predictor.runtime.card.pixel_range)
    except DatasetError as error:
        if skip is not None:
            skip(error)
        elif image.is_listed:
            raise
        else:
            logger.warning("%s; skipped", error)
        return None
