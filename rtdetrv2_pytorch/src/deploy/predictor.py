"""Detect objects in images: preprocessing, runtime, thresholds, NMS."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..data.images.conversion import ImageLike, to_rgb
from ..data.images.decoding import read_rgb
from ..data.images.opening import Source
from ..data.images.preprocess import preprocess
from ..misc.errors import ConfigError
from ..structures import DetectionTensors
from .runtimes import Runtime
from .suppression import above, suppress


@dataclass(frozen=True)
class Timing:
    """Duration of the parts of a prediction, in seconds."""

    preprocess_s: float = 0.0
    inference_s: float = 0.0
    postprocess_s: float = 0.0

    def __add__(self, other: "Timing") -> "Timing":
        return Timing(
            self.preprocess_s + other.preprocess_s,
            self.inference_s + other.inference_s,
            self.postprocess_s + other.postprocess_s,
        )


class Predictor:
    """Detect objects in images of any size.

    Args:
        runtime: loaded detector.
        batch_size: images per batch; default: the maximum of the runtime, at most 16.

    Raises:
        ConfigError: if the batch size is below 1.
    """

    def __init__(self, runtime: Runtime, batch_size: int | None = None) -> None:
        self.runtime = runtime
        largest = runtime.max_batch_size
        wanted = 16 if batch_size is None else batch_size
        if wanted < 1:
            raise ConfigError(f"batch_size = {wanted}: must be 1 or higher")
        self.batch_size = wanted if largest is None else min(wanted, largest)

    def read(self, source: Source) -> np.ndarray:
        """Read an image file as in training: [H, W, 3] uint8 RGB.

        Raises:
            ImageFileError: if the file cannot be decoded.
        """
        return read_rgb(source, pixel_range=self.runtime.card.pixel_range)

    def predict(
        self,
        images: Sequence[ImageLike],
        confidence_threshold: float | Literal["auto"] = 0.5,
        nms_iou: float | None = None,
    ) -> tuple[list[DetectionTensors], Timing]:
        """Detect objects.

        Args:
            images: paths, PIL images, arrays or tensors, see `conversion.to_rgb`. Pixels with more
                than 8 bits are scaled as in training.
            confidence_threshold: minimum score; "auto" uses the threshold with the best F1 of each
                class, measured in training.
            nms_iou: IoU above which the lower-scoring detection of a class is removed; None: no
                NMS.

        Returns:
            Detections per image on the CPU, highest score first, boxes clipped to the image; and
            the duration.

        Raises:
            ConfigError: if a threshold is not a number from 0 to 1, or an image is not supported.
            ImageFileError: if a file cannot be decoded.
            CheckpointError: for "auto" with a model without thresholds.
        """
        thresholds = self._thresholds(confidence_threshold)
        if nms_iou is not None:
            nms_iou = fraction("nms_iou", nms_iou)
            if nms_iou == 0:
                raise ConfigError("nms_iou = 0: must be above 0 and at most 1, or None")
        detections: list[DetectionTensors] = []
        timing = Timing()
        for start in range(0, len(images), self.batch_size):
            found, spent = self._predict_batch(
                images[start : start + self.batch_size], thresholds, nms_iou
            )
            detections += found
            timing += spent
        return detections, timing

    def _thresholds(self, threshold: float | Literal["auto"]) -> Tensor:
        """[K] minimum score per class."""
        card = self.runtime.card
        if isinstance(threshold, str) and threshold == "auto":
            return torch.tensor(card.thresholds(), dtype=torch.float32)
        value = fraction("confidence_threshold", threshold, "or auto")
        return torch.full((len(card.class_names),), value)

    def _predict_batch(
        self, images: Sequence[ImageLike], thresholds: Tensor, nms_iou: float | None
    ) -> tuple[list[DetectionTensors], Timing]:
        device, card = self.runtime.device, self.runtime.card
        begin = time.perf_counter()
        pixels = [to_rgb(image, card.pixel_range) for image in images]
        batch = preprocess(pixels, card.input_size_hw, device)
        sizes_wh = torch.tensor([(image.shape[1], image.shape[0]) for image in pixels])
        _synchronize(device)
        ready = time.perf_counter()
        results = self.runtime(batch, sizes_wh)
        _synchronize(device)
        done = time.perf_counter()
        labels, boxes, scores = (result.cpu() for result in results)
        boxes = clip(boxes, sizes_wh)
        found = []
        for i in range(len(images)):
            one = DetectionTensors(labels=labels[i], boxes=boxes[i], scores=scores[i])
            one = above(one, thresholds)
            found.append(one if nms_iou is None else suppress(one, nms_iou))
        return found, Timing(ready - begin, done - ready, time.perf_counter() - done)


def clip(boxes: Tensor, sizes_wh: Tensor) -> Tensor:
    """Clip boxes to their images: [B, N, 4] xyxy, [B, 2] (width, height)."""
    return boxes.clamp(min=0).minimum(sizes_wh.to(boxes).repeat(1, 2)[:, None])


def fraction(name: str, value: object, others: str = "") -> float:
    """Return a number from 0 to 1; scalars of NumPy and torch are numbers, too.

    Args:
        name: of the value in the error.
        value: to check.
        others: what else is allowed, for the error.

    Raises:
        ConfigError: if it is something else.
    """
    number: Any = value
    if isinstance(value, np.ndarray | np.generic | Tensor) and value.ndim == 0:
        number = value.item()
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if not is_number or not 0 <= number <= 1:
        suffix = f", {others}" if others else ""
        raise ConfigError(f"{name} = {value!r}: must be a number from 0 to 1{suffix}")
    return float(number)


def _synchronize(device: torch.device) -> None:
    """Synchronize a GPU, so that durations are attributed correctly."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
