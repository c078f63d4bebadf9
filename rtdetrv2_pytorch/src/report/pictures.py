"""Images with boxes: the picture small, the boxes as lines over it, sharp at any size."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ..data.images import read_rgb
from ..misc.errors import DatasetError
from ..misc.pages import jpeg_uri
from ..misc.text import printable
from .outcomes import Outcome
from .plots import shortened

_SIDE_PX = 480
_QUALITY = 72
_LETTER_WIDTH = 0.6  # of its height, about
_MOST_BOXES = 100  # drawn on a picture, of a kind
_MOST_LETTERS = 12  # of a name on a box

Kind = Literal["truth", "hit", "false", "missed"]
Mark = tuple[Kind, np.ndarray, str, str]  # xyxy in pixels of the image, label, title


@dataclass(frozen=True)
class Box:
    """What is drawn of a box, in pixels of the picture."""

    kind: Kind
    x: float
    y: float
    width: float
    height: float
    label: str  # short, drawn
    title: str  # whole, for a pointer over it


@dataclass(frozen=True)
class Picture:
    """An image of the page."""

    source: str  # data URI
    width: int
    height: int
    boxes: Sequence[Box]
    name: str
    caption: str

    @property
    def letter(self) -> float:
        """Height of the labels."""
        return _letter(self.width)

    def label_x(self, box: Box) -> float:
        """Where a label begins: above its box, and inside of the picture."""
        return round(max(min(box.x + 2, self.width - _reach(box.label, self.letter)), 0), 1)


def picture_of(outcome: Outcome, folder: Path, names: Sequence[str]) -> Picture | None:
    """An image with what was found, what was missed and what is not there.

    Args:
        outcome: of the image.
        folder: that its file name is relative to.
        names: of the classes.

    Returns:
        The picture, or None if the file cannot be read any more.
    """
    record = outcome.record
    try:
        image = Image.fromarray(read_rgb(folder / record.file_name, record.size_wh))
    except DatasetError:
        return None
    size = image.width, image.height
    image.thumbnail((_SIDE_PX, _SIDE_PX))
    scale = np.array([image.width / size[0], image.height / size[1]] * 2)
    drawn = [
        _box(kind, box * scale, label, title) for kind, box, label, title in _all(outcome, names)
    ]
    return Picture(
        source=jpeg_uri(image, _QUALITY),
        width=image.width,
        height=image.height,
        boxes=_readable(drawn, _letter(image.width)),
        name=printable(record.file_name),
        caption=_caption(outcome),
    )


def _all(outcome: Outcome, names: Sequence[str]) -> list[Mark]:
    """Everything to draw, what matters most last, so that it lies on top."""
    record = outcome.record
    truth: list[Mark] = []
    missed: list[Mark] = []
    false: list[Mark] = []
    hits: list[Mark] = []
    is_missed = outcome.is_missed
    for box, label, lost, counts in zip(
        record.boxes_xyxy, record.labels, is_missed, outcome.is_true_box, strict=True
    ):
        name, short = names[label], shortened(names[label], _MOST_LETTERS)
        if lost:
            missed.append(("missed", box, f"? {short}", f"missed: {name}"))
        else:
            title = f"annotated: {name}" if counts else f"a crowd, not to be found: {name}"
            truth.append(("truth", box, "", title))
    for box, label, score, found, other in zip(
        outcome.boxes, outcome.labels, outcome.scores, outcome.found, outcome.confused, strict=True
    ):
        name, number = names[label], f"{score:.2f}"
        short = shortened(name, _MOST_LETTERS)
        if found >= 0:
            hits.append(("hit", box, f"{short} {number}", f"found: {name}, {number}"))
        else:
            why = f", is {names[record.labels[other]]}" if other >= 0 else ""
            text = f"not there: {name}, {number}{why}"
            false.append(("false", box, f"\u2715 {short} {number}", text))
    return [mark for kind in (truth, hits, missed, false) for mark in kind[:_MOST_BOXES]]


def _box(kind: Kind, xyxy: np.ndarray, label: str, title: str) -> Box:
    x1, y1, x2, y2 = (round(float(v), 1) for v in xyxy)
    width, height = round(max(x2 - x1, 1), 1), round(max(y2 - y1, 1), 1)
    return Box(kind, x1, y1, width, height, printable(label), printable(title))


def _reach(label: str, letter: float) -> float:
    return _LETTER_WIDTH * letter * len(label)


def _letter(width: int) -> float:
    return 0.042 * width  # about 11 pixels of the screen


def _readable(boxes: Sequence[Box], letter: float) -> list[Box]:
    """The boxes, without the labels that would lie on another one; what lies on top keeps its."""
    taken: list[tuple[float, float, float]] = []
    result = []
    for box in reversed(boxes):
        place = box.x, max(box.y, letter)
        reach = _reach(box.label, letter)
        is_free = all(
            abs(place[1] - y) >= letter or place[0] >= end or x >= place[0] + reach
            for x, y, end in taken
        )
        if box.label and is_free:
            taken.append((*place, place[0] + reach))
        result.append(box if is_free else replace(box, label=""))
    return result[::-1]


def _caption(outcome: Outcome) -> str:
    parts = []
    if outcome.num_boxes:
        parts.append(f"{outcome.num_hits} of {outcome.num_boxes} found")
    elif not outcome.num_false:
        parts.append("nothing there, nothing found")
    if outcome.num_false:
        parts.append(f"{outcome.num_false} not there")
    return ", ".join(parts)


def spread(outcomes: Sequence[Outcome], count: int) -> dict[str, list[Outcome]]:
    """The best, the middle and the worst images, no image twice.

    Args:
        outcomes: of images with boxes.
        count: images of each kind at most.
    """
    ranked = sorted(outcomes, key=lambda o: o.quality)
    count = min(count, max(len(ranked) // 3, 1))
    middle = max((len(ranked) - count) // 2, 0)
    chosen = {
        "worst": ranked[:count],
        "median": ranked[middle : middle + count] if len(ranked) >= 3 else [],
        "best": ranked[::-1][:count] if len(ranked) >= 2 else [],
    }
    return {name: found for name, found in chosen.items() if found}
