"""Files with the detections of many images."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.misc.files import write_text

from .conversions import CONFIDENCE, category_ids, covered_pixels
from .detections import Detections

_FILE = "predictions.json"


class PredictionWriter(Protocol):
    """Writes detections in a format."""

    def add(self, label: str, found: Detections) -> None:
        """Add the detections of an image with this path in the results."""

    def finish(self) -> Path:
        """Complete the files; return their path."""


class JsonFile:
    """One file: a list of images with their objects.

    Args:
        folder: of the file.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._images: list[dict[str, Any]] = []

    def add(self, label: str, found: Detections) -> None:
        """Add an image: boxes are xyxy in pixels."""
        height, width = found.size_hw
        objects = [
            {"name": one.name, "score": round(one.score, 5), "box": _rounded(one.box)}
            for one in found
        ]
        self._images.append({"image": label, "width": width, "height": height, "objects": objects})

    def finish(self) -> Path:
        """Write the file."""
        return _written(self._path, self._images)


class CocoFile:
    """One COCO file with images, categories, and annotations with scores.

    Args:
        folder: of the file.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._content: dict[str, list[dict[str, Any]]] = {
            "images": [],
            "categories": [],
            "annotations": [],
        }

    def add(self, label: str, found: Detections) -> None:
        """Add an image; its id is its number."""
        content = self._content
        if not content["categories"]:
            ids = category_ids(found.class_names)
            content["categories"] = [{"id": i, "name": name} for name, i in ids.items()]
        number = len(content["images"]) + 1
        height, width = found.size_hw
        content["images"].append(
            {"id": number, "file_name": label, "width": width, "height": height}
        )
        for row in found.to_coco(number):
            *_, w, h = row["bbox"]
            more = {"id": len(content["annotations"]) + 1, "area": round(w * h, 3), "iscrowd": 0}
            content["annotations"].append(row | more)

    def finish(self) -> Path:
        """Write the file."""
        return _written(self._path, self._content)


class SuperviselyFolder:
    """An annotation of Supervisely per image, with scores as tags.

    Args:
        folder: of the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: list[Path] = []

    def add(self, label: str, found: Detections) -> None:
        """Write the annotation of an image."""
        height, width = found.size_hw
        objects = []
        for one in found:
            left, top, right, bottom = covered_pixels(one.box, found.size_hw)
            objects.append(
                {
                    "classTitle": one.name,
                    "geometryType": "rectangle",
                    "description": "",
                    "tags": [{"name": CONFIDENCE, "value": one.score}],
                    "points": {"exterior": [[left, top], [right, bottom]], "interior": []},
                }
            )
        content = {
            "description": "",
            "tags": [],
            "size": {"height": height, "width": width},
            "objects": objects,
        }
        self._paths.append(_written(self._folder / f"{label}.json", content))

    def finish(self) -> Path:
        """Return the file of a single image, or the folder."""
        return self._paths[0] if len(self._paths) == 1 else self._folder


FORMATS: dict[str, Callable[[Path], PredictionWriter]] = {
    "json": JsonFile,
    "coco": CocoFile,
    "supervisely": SuperviselyFolder,
}


def _rounded(box: tuple[float, ...]) -> list[float]:
    return [round(value, 2) for value in box]


def _written(path: Path, content: object) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(content, indent=1))
    except OSError as error:
        raise ConfigError(
            f"--output {path}: not writable ({error.strerror}); choose another folder"
        ) from error
    return path
