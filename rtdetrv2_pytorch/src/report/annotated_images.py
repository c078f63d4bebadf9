"""Images of the report: a small JPEG, with boxes as SVG shapes that are sharp at any zoom."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ..data.images.decoding import read_rgb
from ..data.images.pixel_range import PixelRange
from ..misc.drawing import non_overlapping
from ..misc.errors import DatasetError
from ..misc.pages import jpeg_uri
from ..misc.text import printable
from .outcomes import Outcome
from .plots import shortened

_SIDE_PX = 480
_JPEG_QUALITY = 72
_LETTER_WIDTH = 0.6  # approximate, as a fraction of the letter height
_MAX_BOXES = 100  # per image and kind
_MAX_LABEL_LETTERS = 12

Kind = Literal["truth", "hit", "false", "missed"]
Mark = tuple[Kind, np.ndarray, str, str]  # kind, xyxy in pixels of the image, label, title


@dataclass(frozen=True)
class ImageBox:
    """A box of an annotated image, in pixels of the small image."""

    kind: Kind
    x: float
    y: float
    width: float
    height: float
    label: str  # short text next to the box
    title: str  # tooltip


@dataclass(frozen=True)
class AnnotatedImage:
    """An image of the report with its boxes."""

    source: str  # data URI
    width: int
    height: int
    boxes: Sequence[ImageBox]
    name: str
    caption: str

    @property
    def letter(self) -> float:
        """Height of the labels."""
        return _letter_height(self.width)

    def label_x(self, box: ImageBox) -> float:
        """Return the left edge of a label, moved so that the label ends within the image."""
        width = _label_width(box.label, self.letter)
        return round(max(min(box.x + 2, self.width - width), 0), 1)


def annotated_image(
    outcome: Outcome, folder: Path, names: Sequence[str], pixel_range: PixelRange | None
) -> AnnotatedImage | None:
    """Return an image with its hits, false positives and missed boxes.

    None if the file, whose name is relative to `folder`, is not readable anymore.
    """
    record = outcome.record
    try:
        path = folder / record.file_name
        image = Image.fromarray(read_rgb(path, record.size_wh, pixel_range=pixel_range))
    except DatasetError:
        return None
    size = image.width, image.height
    image.thumbnail((_SIDE_PX, _SIDE_PX))
    scale = np.array([image.width / size[0], image.height / size[1]] * 2)
    boxes = [
        _box(kind, box * scale, label, title) for kind, box, label, title in _marks(outcome, names)
    ]
    return AnnotatedImage(
        source=jpeg_uri(image, _JPEG_QUALITY),
        width=image.width,
        height=image.height,
        boxes=_without_overlapping_labels(boxes, _letter_height(image.width)),
        name=printable(record.file_name),
        caption=_caption(outcome),
    )


def _marks(outcome: Outcome, names: Sequence[str]) -> list[Mark]:
    """Return all boxes to draw; the most important last, so that they are on top."""
    record = outcome.record
    truth: list[Mark] = []
    missed: list[Mark] = []
    false: list[Mark] = []
    hits: list[Mark] = []
    for box, label, is_missed, is_object in zip(
        record.boxes_xyxy, record.labels, outcome.is_missed, outcome.is_true_box, strict=True
    ):
        name, short = names[label], shortened(names[label], _MAX_LABEL_LETTERS)
        if is_missed:
            missed.append(("missed", box, f"? {short}", f"missed: {name}"))
        else:
            title = f"annotated: {name}" if is_object else f"crowd, ignored: {name}"
            truth.append(("truth", box, "", title))
    for box, label, score, found, other in zip(
        outcome.boxes, outcome.labels, outcome.scores, outcome.found, outcome.confused, strict=True
    ):
        name, number = names[label], f"{score:.2f}"
        short = shortened(name, _MAX_LABEL_LETTERS)
        if found >= 0:
            hits.append(("hit", box, f"{short} {number}", f"detected: {name}, {number}"))
        else:
            actual = f", actually {names[record.labels[other]]}" if other >= 0 else ""
            title = f"false positive: {name}, {number}{actual}"
            false.append(("false", box, f"\u2715 {short} {number}", title))
    return [mark for kind in (truth, hits, missed, false) for mark in kind[:_MAX_BOXES]]


def _box(kind: Kind, xyxy: np.ndarray, label: str, title: str) -> ImageBox:
    x1, y1, x2, y2 = (round(float(v), 1) for v in xyxy)
    width, height = round(max(x2 - x1, 1), 1), round(max(y2 - y1, 1), 1)
    return ImageBox(kind, x1, y1, width, height, printable(label), printable(title))


def _label_width(label: str, letter: float) -> float:
    return _LETTER_WIDTH * letter * len(label)


def _letter_height(width: int) -> float:
    return 0.042 * width  # about 11 pixels on the screen


def _without_overlapping_labels(boxes: Sequence[ImageBox], letter: float) -> list[ImageBox]:
    """Remove labels that would overlap the label of a box above."""
    labeled = [i for i, box in reversed(list(enumerate(boxes))) if box.label]
    rectangles = []
    for i in labeled:
        x, y = boxes[i].x, max(boxes[i].y, letter)
        rectangles.append((x, y - letter, x + _label_width(boxes[i].label, letter), y))
    kept = {labeled[place] for place in non_overlapping(rectangles)}
    return [box if i in kept else replace(box, label="") for i, box in enumerate(boxes)]


def _caption(outcome: Outcome) -> str:
    parts = []
    if outcome.num_boxes:
        parts.append(f"{outcome.num_hits} of {outcome.num_boxes} detected")
    elif not outcome.num_false:
        parts.append("no objects, no detections")
    if outcome.num_false:
        parts.append(f"{outcome.num_false} false positive{'s' if outcome.num_false > 1 else ''}")
    return ", ".join(parts)


def select_examples(outcomes: Sequence[Outcome], count: int) -> dict[str, list[Outcome]]:
    """Select up to `count` worst, median and best images with boxes, each at most once."""
    ranked = sorted(outcomes, key=lambda o: o.quality)
    count = min(count, max(len(ranked) // 3, 1))
    middle = max((len(ranked) - count) // 2, 0)
    chosen = {
        "worst": ranked[:count],
        "median": ranked[middle : middle + count] if len(ranked) >= 3 else [],
        "best": ranked[::-1][:count] if len(ranked) >= 2 else [],
    }
    return {name: found for name, found in chosen.items() if found}
