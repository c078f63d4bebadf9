"""From images in memory to detections: preprocessing, runtime, thresholds."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..data.images.preprocess import preprocess_batch
from ..misc.errors import ConfigError
from ..structures import Detections
from .runtimes import Runtime
from .suppression import above, suppress


@dataclass(frozen=True)
class Timing:
    """Where the time of a prediction went, in seconds."""

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
    """Detects in images of any sizes.

    Args:
        runtime: what to run.
        batch_size: images to run at once; default: all that the runtime takes, 16 at most.

    Raises:
        ConfigError: if the batch size is below 1.
    """

    def __init__(self, runtime: Runtime, batch_size: int | None = None) -> None:
        self.runtime = runtime
        largest = runtime.max_batch_size
        wanted = 16 if batch_size is None else batch_size
        if wanted < 1:
            raise ConfigError(f"batch_size = {wanted}: give 1 or more")
        self.batch_size = wanted if largest is None else min(wanted, largest)

    def predict(
        self,
        images: Sequence[np.ndarray],
        confidence_threshold: float | Literal["auto"] = 0.5,
        nms_iou: float | None = None,
    ) -> tuple[list[Detections], Timing]:
        """Detect.

        Args:
            images: [H, W, 3] uint8 RGB each.
            confidence_threshold: lowest score to keep; "auto" takes the thresholds of the classes
                that were the best in training.
            nms_iou: overlap from which the weaker detection of a class is dropped; None: none is.

        Returns:
            Per image its detections on the CPU, best first, boxes clipped to the image; and where
            the time went.

        Raises:
            ConfigError: if a threshold is no number from 0 to 1.
            CheckpointError: if "auto" is asked of a model without thresholds.
        """
        thresholds = self._thresholds(confidence_threshold)
        if nms_iou is not None and not 0 < _number("nms_iou", nms_iou) <= 1:
            raise ConfigError(f"nms_iou = {nms_iou}: give an overlap above 0 and up to 1, or none")
        detections: list[Detections] = []
        timing = Timing()
        for start in range(0, len(images), self.batch_size):
            found, spent = self._predict_batch(
                images[start : start + self.batch_size], thresholds, nms_iou
            )
            detections += found
            timing += spent
        return detections, timing

    def _thresholds(self, threshold: float | Literal["auto"]) -> Tensor:
        """[K] lowest score of each class."""
        card = self.runtime.card
        if threshold == "auto":
            return torch.tensor(card.thresholds(), dtype=torch.float32)
        value = _number("confidence_threshold", threshold)
        if not 0 <= value <= 1:
            raise ConfigError(f"confidence_threshold = {value}: give a score from 0 to 1, or auto")
        return torch.full((len(card.class_names),), value)

    def _predict_batch(
        self, images: Sequence[np.ndarray], thresholds: Tensor, nms_iou: float | None
    ) -> tuple[list[Detections], Timing]:
        device = self.runtime.device
        begin = time.perf_counter()
        batch = preprocess_batch(images, self.runtime.card.input_size_hw, device)
        sizes_wh = torch.tensor([(image.shape[1], image.shape[0]) for image in images])
        _wait(device)
        ready = time.perf_counter()
        results = self.runtime(batch, sizes_wh)
        _wait(device)
        done = time.perf_counter()
        labels, boxes, scores = (result.cpu() for result in results)
        boxes = clip(boxes, sizes_wh)
        found = []
        for i in range(len(images)):
            one = Detections(labels=labels[i], boxes=boxes[i], scores=scores[i])
            one = above(one, thresholds)
            found.append(one if nms_iou is None else suppress(one, nms_iou))
        return found, Timing(ready - begin, done - ready, time.perf_counter() - done)


def clip(boxes: Tensor, sizes_wh: Tensor) -> Tensor:
    """Move corners that lie outside to the border: [B, N, 4] xyxy, [B, 2] (width, height)."""
    return boxes.clamp(min=0).minimum(sizes_wh.to(boxes).repeat(1, 2)[:, None])


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{name} = {value!r}: give a number from 0 to 1")
    return float(value)


def _wait(device: torch.device) -> None:
    """Let a GPU finish, so that its work is counted where it belongs."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
