"""Filtering and conversion of boxes."""

import random
from typing import Literal

import numpy as np

from .sample import Sample


class SanitizeBoundingBoxes:
    """Remove boxes that are too small or outside the canvas, with their labels.

    Args:
        min_size: minimum side in pixels.
        min_area: minimum area in square pixels.
        labels_getter: kept for existing YAML files.
    """

    def __init__(
        self,
        *,
        min_size: float = 1.0,
        min_area: float = 1.0,
        labels_getter: Literal["default"] | None = "default",
    ) -> None:
        self.min_size = min_size
        self.min_area = min_area

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Filter the boxes."""
        height, width = sample.canvas_hw
        x1, y1, x2, y2 = sample.boxes.T
        box_width, box_height = x2 - x1, y2 - y1
        sample.keep(
            (box_width >= self.min_size)
            & (box_height >= self.min_size)
            & (box_width * box_height >= self.min_area)
            & (x1 >= 0)
            & (y1 >= 0)
            & (x2 <= width)
            & (y2 <= height)
        )
        return sample


class ConvertBoxes:
    """Convert format and unit of the boxes; the last step of a training pipeline.

    Args:
        fmt: "cxcywh"; "xyxy" or "" keep the format.
        normalize: divide by the canvas size.
    """

    def __init__(self, *, fmt: Literal["cxcywh", "xyxy", ""] = "", normalize: bool = False) -> None:
        self.fmt = fmt
        self.normalize = normalize

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Convert the boxes."""
        height, width = sample.canvas_hw
        if self.fmt == "cxcywh":
            sample.move_boxes(
                lambda boxes: np.concatenate(
                    ((boxes[:, :2] + boxes[:, 2:]) * 0.5, boxes[:, 2:] - boxes[:, :2]), axis=1
                )
            )
        if self.normalize:
            sample.move_boxes(lambda boxes: boxes / (width, height, width, height))
        return sample
