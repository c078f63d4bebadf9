"""What every format is read into: images with annotations as the platform stores them.

The platform stores edges, not pixels: a rectangle that covers the pixels 10..19 goes from 10 to
20. The SDK adds the one on upload and takes it off on download; nothing else does.
"""

from collections.abc import Iterable, Iterator, Mapping
from colorsys import hls_to_rgb
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rtdetrv2_pytorch.src.misc.text import whole_characters

FormatName = Literal["supervisely", "coco", "yolo", "voc"]

RECTANGLE, POLYGON, ANY_SHAPE = "rectangle", "polygon", "any"
DEFAULT_DATASET = "ds0"  # what the platform calls a data set that nobody named

_IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".mpo", ".png", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".jfif"}
)
_HUE_STEP = 0.381966  # golden ratio: neighbours in a list get hues far apart
_SPLIT_WORDS = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class ImportItem:
    """One image that can be used."""

    dataset: str  # "parent/child"
    name: str  # unique in its data set
    path: Path
    annotation: Mapping[str, Any]  # as the platform stores it

    @property
    def num_objects(self) -> int:
        """Objects on it."""
        return len(self.annotation["objects"])


@dataclass(frozen=True)
class Skip:
    """Something that cannot be used, and why."""

    what: str
    reason: str
    images: int = 0
    objects: int = 0


@dataclass
class Ledger:
    """Counts what a folder holds, and keeps what cannot be used of it."""

    given_images: int = 0
    given_objects: int = 0
    skips: list[Skip] = field(default_factory=list)

    def skip_image(self, what: str, reason: str, *, objects: int = 0) -> None:
        """Note an image that cannot be used, with the objects that are lost with it."""
        self.skips.append(Skip(what, reason, images=1, objects=objects))

    def skip_object(self, what: str, reason: str) -> None:
        """Note an object."""
        self.skips.append(Skip(what, reason, objects=1))

    def note(self, what: str, reason: str) -> None:
        """Note anything else: a file, a class, a tag."""
        self.skips.append(Skip(what, reason))

    def by_reason(self) -> dict[str, list[Skip]]:
        """What was skipped, by the reason; the reasons in the order in which they came up."""
        found: dict[str, list[Skip]] = {}
        for skip in self.skips:
            found.setdefault(skip.reason, []).append(skip)
        return found


@dataclass(frozen=True)
class ImportSource:
    """A folder that is being read.

    Its ledger is complete when its items have been taken to the end.
    """

    format: FormatName
    meta: Mapping[str, Any]  # of a Supervisely project
    items: Iterator[ImportItem]
    num_images: int  # about as many as there will be, for a progress bar
    ledger: Ledger


# Names


def split_of(*texts: str) -> str | None:
    """The split that the first of these texts that names one is of."""
    for text in texts:
        words = "".join(c if c.isalpha() else " " for c in text.lower()).split()
        for split, names in _SPLIT_WORDS.items():
            if any(word in names for word in words):
                return split
    return None


class UniqueNames:
    """Gives images of one data set names of their own, as files of other folders may share one."""

    def __init__(self) -> None:
        self._taken: set[tuple[str, str]] = set()

    def take(self, dataset: str, name: str) -> str:
        """The name itself, or with a number where it is taken; in whole characters."""
        path = Path(whole_characters(name).replace("\\", "/"))
        candidate, number = path.name, 1
        while (dataset, candidate) in self._taken:
            number += 1
            candidate = f"{path.stem}_{number}{path.suffix}"
        self._taken.add((dataset, candidate))
        return candidate


def inside(folder: Path, entry: str) -> Path | None:
    """The file that an entry of a list means, or None if it lies outside of the folder."""
    parts: list[str] = []
    for part in Path(entry.replace("\\", "/")).parts:
        if part == ".." and parts:
            parts.pop()
        elif part == ".." or Path(part).is_absolute():
            return None
        else:
            parts.append(part)
    return folder.joinpath(*parts)


def list_files(folder: Path, depth: int = 8) -> Iterator[Path]:
    """Files below a folder, by name; hidden ones and those of hidden folders are left out."""
    if depth < 0 or not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == "__MACOSX":
            continue
        if path.is_dir():
            yield from list_files(path, depth - 1)
        elif path.is_file():
            yield path


# What files hold


def is_image(path: Path) -> bool:
    """Whether a file has the name of an image."""
    return path.suffix.lower() in _IMAGE_SUFFIXES


def read_lines(path: Path) -> list[str]:
    """Lines of a text file that hold something; none if it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return []
    return [line.strip() for line in text.splitlines() if line.strip()]


def declared_size(record: Any) -> tuple[int, int] | None:
    """(width, height) that a JSON object says its image has; None if it does not."""
    if not isinstance(record, dict):
        return None
    width, height = record.get("width"), record.get("height")
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return width, height
    return None


# Parts of a project


def _color_of(number: int) -> str:
    """Unlike the colours of the neighbours of this number."""
    red, green, blue = hls_to_rgb(number * _HUE_STEP % 1, 0.45 + 0.1 * (number % 2), 0.75)
    return f"#{round(red * 255):02X}{round(green * 255):02X}{round(blue * 255):02X}"


def make_meta(shapes: Mapping[str, str]) -> dict[str, Any]:
    """Meta of a project with these classes.

    Args:
        shapes: shape by class name, in the order of the classes.
    """
    classes = [
        {
            "title": title,
            "description": "",
            "shape": shape,
            "color": _color_of(number),
            "geometry_config": {},
            "hotkey": "",
        }
        for number, (title, shape) in enumerate(shapes.items())
    ]
    return {"classes": classes, "tags": [], "projectType": "images"}


def make_annotation(
    size_wh: tuple[int, int], objects: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Annotation of an image without tags."""
    width, height = size_wh
    return {
        "description": "",
        "size": {"height": height, "width": width},
        "tags": [],
        "objects": list(objects),
    }


def make_object(title: str, shape: str, exterior: Iterable[tuple[float, float]]) -> dict[str, Any]:
    """A rectangle or polygon.

    Args:
        title: its class.
        shape: "rectangle" or "polygon".
        exterior: corners (x, y); two opposite ones of a rectangle.
    """
    return {
        "classTitle": title,
        "description": "",
        "geometryType": shape,
        "shape": shape,
        "tags": [],
        "points": {"exterior": [[_neat(x), _neat(y)] for x, y in exterior], "interior": []},
    }


def _neat(value: float) -> float:
    """Whole numbers as such, and no noise of floating point in the others."""
    rounded = round(value, 3)
    return int(rounded) if rounded == int(rounded) else rounded
