"""The result of reading a data set: images with annotated objects, classes and findings."""

import math
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..categories import CategoryId
from ..findings import Findings
from ..split_names import Decision, Part

FormatName = Literal["supervisely", "coco", "labelme", "yolo", "voc"]
Point = tuple[float, float]

RECTANGLE, POLYGON, ANY_SHAPE = "rectangle", "polygon", "any"
DEFAULT_SPLIT = "ds0"  # Supervisely's name for a dataset without a name

# Classes that labeling programs add, not users.
PROGRAM_CLASSES = frozenset({"_background_", "__background__", "__ignore__", "_ignore_"})

_MAX_LETTERS = 80  # of a value in a message


@dataclass(slots=True)
class SourceObject:
    """One annotated object.

    `points` are edges, not pixels: a rectangle that covers the pixels 10..19 goes from 10 to 20.
    """

    label: str  # within its image, for messages: "annotation 7"
    class_name: str
    points: Sequence[Point] = ()  # two opposite corners of a rectangle, or those of a polygon
    shape: str = RECTANGLE
    problem: str = ""  # kind of finding, if the object cannot be used
    detail: str = ""  # of the problem
    is_crowd: bool = False
    area: float | None = None  # as annotated

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The rectangle around all points: (x1, y1, x2, y2)."""
        xs, ys = [x for x, _ in self.points], [y for _, y in self.points]
        return min(xs), min(ys), max(xs), max(ys)

    def problem_among(self, classes: Container[str]) -> str:
        """Return the kind of finding that makes the object unusable; empty if it is usable."""
        if self.class_name and self.class_name not in classes:
            return "object_left_out" if self.class_name in PROGRAM_CLASSES else "unknown_class"
        return self.problem

    @property
    def description(self) -> str:
        """The object with its problem, for messages."""
        return f"{self.label}: {self.detail}" if self.detail else self.label


@dataclass(frozen=True)
class SourceImage:
    """One image of a data set, as its annotations list it; the file has not been read."""

    split: str  # path of its dataset: "train" or "VOC2012/val"
    name: str  # for messages
    path: Path
    objects: Sequence[SourceObject]
    size_wh: tuple[int, int] | None = None  # as declared
    is_relative: bool = False  # whether points are fractions of the image size
    image_id: CategoryId = 0
    annotation: Mapping[str, Any] | None = None  # of a Supervisely project, as stored
    part: Part | None = None  # what it is used for; None: not used

    def shows_any_of(self, classes: Container[str]) -> bool:
        """Return whether the image shows an object to learn, usable or not.

        If none of them is usable, the image is left out: as background it would train the model to
        ignore them. Objects of other classes than those of the training split are background.
        """
        return any(
            not each.class_name
            or each.class_name in classes
            or (self.part == "train" and each.class_name not in PROGRAM_CLASSES)
            for each in self.objects
        )


@dataclass(frozen=True)
class AnnotationFile:
    """A COCO file that can be used as it is."""

    path: Path
    img_folder: Path  # that all its file names are relative to


@dataclass(frozen=True)
class DataSource:
    """A data set that is being read.

    Its findings are complete when its images have been consumed.
    """

    format: FormatName
    classes: Mapping[str, str]  # shape by name, in the order of the labels
    images: Iterator[SourceImage]
    groups: Mapping[str, int]  # number of images by split of the images
    findings: Findings
    listed: Collection[str]  # images that annotations name, as paths relative to the root
    used_classes: Collection[str]  # with objects
    # Class list of each split of the images, if the splits have lists of their own.
    own_classes: Mapping[str, Collection[str]] = field(default_factory=dict)
    files: Mapping[str, AnnotationFile] = field(default_factory=dict)  # by split, if usable
    meta: Mapping[str, Any] | None = None  # of a Supervisely project
    decision: Decision = Decision({}, frozenset(), "")
    has_crowds: bool = False  # whether COCO annotations contain crowd regions

    @property
    def num_images(self) -> int:
        """Number of images that the annotations list."""
        return sum(self.groups.values())


def rectangle_problem(x1: float, y1: float, x2: float, y2: float) -> str:
    """Return the kind of finding that makes a rectangle unusable; empty if it is usable."""
    if not all(math.isfinite(value) for value in (x1, y1, x2, y2)):
        return "box_not_finite"
    if x2 < x1 or y2 < y1:
        return "box_inverted"
    return "" if x2 > x1 and y2 > y1 else "box_zero_area"


def shorten(value: Any) -> str:
    """Return a value of a file as text for a message."""
    text = str(value)
    return text if len(text) <= _MAX_LETTERS else f"{text[:_MAX_LETTERS]}..."


def declared_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Return (width, height) if both are positive whole numbers, as numbers or text."""
    try:
        sides = [None if isinstance(v, bool) or v is None else float(v) for v in (width, height)]
        if not all(side is not None and side > 0 and side.is_integer() for side in sides):
            return None
        return int(float(width)), int(float(height))
    except (TypeError, ValueError, OverflowError):
        return None
