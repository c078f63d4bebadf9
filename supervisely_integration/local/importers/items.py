"""Convert images of a data set to images with annotations in the platform's storage format.

The platform stores edges, not pixels: a rectangle that covers the pixels 10..19 goes from 10 to
20. The SDK adds 1 on upload and subtracts it on download.
"""

from collections.abc import Iterable, Iterator, Mapping
from colorsys import hls_to_rgb
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.data.findings import Finding, Findings, UnusableError
from rtdetrv2_pytorch.src.data.images.orientation import OrientedImage, read_oriented
from rtdetrv2_pytorch.src.data.readers.formats import read
from rtdetrv2_pytorch.src.data.readers.geometry import clip_box, clip_polygon
from rtdetrv2_pytorch.src.data.readers.source import (
    POLYGON,
    DataSource,
    FormatName,
    SourceImage,
    SourceObject,
)
from rtdetrv2_pytorch.src.data.readers.supervisely import CROWD_TAG
from rtdetrv2_pytorch.src.data.split_names import Decision, Part
from rtdetrv2_pytorch.src.misc.text import whole_characters

from .supervisely_annotations import Names, stored_annotation, stored_meta

_HUE_STEP = 0.381966  # golden ratio: neighbors in a list get distant hues


@dataclass(frozen=True)
class ImportItem:
    """One usable image."""

    dataset: str  # "parent/child"
    name: str  # unique in its dataset
    path: Path
    annotation: Mapping[str, Any]  # as the platform stores it
    part: Part | None  # what it is used for

    @property
    def num_objects(self) -> int:
        """Number of objects of the image."""
        return len(self.annotation["objects"])


@dataclass(frozen=True)
class ImportSource:
    """A folder that is being imported.

    Its findings are complete when its items have been consumed.
    """

    format: FormatName
    meta: Mapping[str, Any]  # of the project
    items: Iterator[ImportItem]
    num_images: int  # expected, for a progress bar
    findings: Findings
    decision: Decision  # of the splits


def read_items(folder: Path, format: FormatName | None = None) -> ImportSource:
    """Read a data set, item by item; its format is detected by default.

    Raises:
        DatasetError: if nothing of it can be read.
    """
    source = read(folder, format)
    if source.meta is None:
        meta = _make_meta(source.classes, has_crowds=source.has_crowds)
    else:
        meta = stored_meta(source.meta, source.classes)
    items = _items(source, meta)
    return ImportSource(
        source.format, meta, items, source.num_images, source.findings, source.decision
    )


def _items(source: DataSource, meta: Mapping[str, Any]) -> Iterator[ImportItem]:
    findings = source.findings
    names, known = _UniqueNames(), Names.of_meta(meta)
    for image in source.images:
        try:
            oriented = read_oriented(image.path)
            is_turned = oriented.is_annotated_as_stored(image.size_wh)
        except UnusableError as error:
            lost = len(image.objects)
            findings.skip_image(error, image.name, image.path, split=image.split, objects=lost)
            continue
        if image.annotation is None:
            objects = list(_objects(image, oriented, source.classes, findings, is_turned=is_turned))
            annotation = _make_annotation(oriented.size_wh, objects)
        else:
            annotation = {
                **_make_annotation(oriented.size_wh, ()),
                **stored_annotation(image, known, oriented, findings, is_turned=is_turned),
            }
        if not annotation["objects"] and image.shows_any_of(source.classes):
            num_lost = len(image.objects)
            findings.skip_unlearnable(image.name, num_lost, image.path, split=image.split)
            continue
        name = names.take(image.split, image.path.name)
        yield ImportItem(image.split, name, image.path, annotation, image.part)


def _objects(
    image: SourceImage,
    oriented: OrientedImage,
    classes: Mapping[str, str],
    findings: Findings,
    *,
    is_turned: bool,
) -> Iterator[dict[str, Any]]:
    for each in image.objects:
        try:
            if problem := each.problem_among(classes):
                raise UnusableError(problem)
            made = _make_object(each, image, oriented, is_turned=is_turned)
            if each.is_crowd:
                findings.add(Finding("box_crowd", image.name, each.description, split=image.split))
            yield made
        except UnusableError as error:
            detail = f"{each.description}: {error.detail}" if error.detail else each.description
            findings.add(Finding(error.kind, image.name, detail, split=image.split, lost_objects=1))


def _make_object(
    each: SourceObject, image: SourceImage, oriented: OrientedImage, *, is_turned: bool
) -> dict[str, Any]:
    width, height = oriented.size_wh if image.is_relative else (1, 1)
    points = [(x * width, y * height) for x, y in each.points]
    points = oriented.turn(points) if is_turned else points
    clip = clip_polygon if each.shape == POLYGON else clip_box
    exterior = [[_rounded(x), _rounded(y)] for x, y in clip(points, oriented.size_wh)]
    return {
        "classTitle": each.class_name,
        "description": "",
        "geometryType": each.shape,
        "shape": each.shape,
        "tags": [{"name": CROWD_TAG, "value": None}] if each.is_crowd else [],
        "points": {"exterior": exterior, "interior": []},
    }


class _UniqueNames:
    """Makes image names unique in their dataset: files of several folders may share a name."""

    def __init__(self) -> None:
        self._taken: set[tuple[str, str]] = set()

    def take(self, dataset: str, name: str) -> str:
        """Return the name, with a number if it is taken, as valid Unicode."""
        path = Path(whole_characters(name).replace("\\", "/"))
        candidate, number = path.name, 1
        while (dataset, candidate) in self._taken:
            number += 1
            candidate = f"{path.stem}_{number}{path.suffix}"
        self._taken.add((dataset, candidate))
        return candidate


def _color_of(number: int) -> str:
    red, green, blue = hls_to_rgb(number * _HUE_STEP % 1, 0.45 + 0.1 * (number % 2), 0.75)
    return f"#{round(red * 255):02X}{round(green * 255):02X}{round(blue * 255):02X}"


def _make_meta(shapes: Mapping[str, str], *, has_crowds: bool) -> dict[str, Any]:
    """Create the meta of a project with these classes: shape by name."""
    crowd_tag = {"name": CROWD_TAG, "value_type": "none", "color": "#888888"}
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
    return {"classes": classes, "tags": [crowd_tag] * has_crowds, "projectType": "images"}


def _make_annotation(
    size_wh: tuple[int, int], objects: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    width, height = size_wh
    return {
        "description": "",
        "size": {"height": height, "width": width},
        "tags": [],
        "objects": list(objects),
    }


def _rounded(value: float) -> float:
    """Round to 1/1000 pixel; whole numbers become integers."""
    rounded = round(value, 3)
    return int(rounded) if rounded == int(rounded) else rounded
