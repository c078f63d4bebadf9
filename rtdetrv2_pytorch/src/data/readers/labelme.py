"""LabelMe format: a JSON file for each image, with shapes."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from ...misc.errors import DatasetError
from ...misc.text import counted
from ..findings import Findings, UnusableError
from ..split_names import split_of_path
from .folders import Tree, folder_of
from .source import (
    ANY_SHAPE,
    DEFAULT_SPLIT,
    POLYGON,
    RECTANGLE,
    DataSource,
    Point,
    SourceImage,
    SourceObject,
    declared_size,
    rectangle_problem,
    shorten,
)

LOOKED_FOR = "a .json file for each image, with 'shapes' and 'imagePath'"
_NUM_PROBES = 20  # files that are searched for the keys
_KEYS = ('"shapes"', '"imagePath"')
_TWO_CORNERS = ("rectangle", "mask", "line")


def recognize(tree: Tree) -> bool:
    """Return whether a folder looks like a data set in this format."""
    files = tree.with_suffix(".json")[:_NUM_PROBES]
    return any(all(key in tree.text(file) for key in _KEYS) for file in files)


def read(tree: Tree) -> DataSource:
    """Read a folder.

    The classes are all that occur.

    Raises:
        DatasetError: if no file has this format.
    """
    findings = Findings()
    images = list(_images(tree, findings))
    if not images and not len(findings):
        raise DatasetError(f"{tree.root}: no files in LabelMe format; looked for {LOOKED_FOR}")
    shapes: dict[str, set[str]] = {}
    groups: dict[str, int] = {}
    for image in images:
        groups[image.split] = groups.get(image.split, 0) + 1
        for each in image.objects:
            shapes.setdefault(each.class_name, set()).add(each.shape)
    classes = {
        name: shapes[name].pop() if len(shapes[name]) == 1 else ANY_SHAPE
        for name in sorted(shapes.keys() - {""})
    }
    used = {o.class_name for image in images for o in image.objects if not o.problem}
    listed = [image.path.relative_to(tree.root).as_posix() for image in images]
    skipped = [each.where for each in findings if each.lost_images]
    return DataSource("labelme", classes, iter(images), groups, findings, [*listed, *skipped], used)


def _images(tree: Tree, findings: Findings) -> Iterator[SourceImage]:
    for file in tree.with_suffix(".json"):
        folder = folder_of(file)
        group = split_of_path(folder) or DEFAULT_SPLIT
        try:
            content = json.loads(tree.text(file))
        except (ValueError, RecursionError) as error:
            content = error
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            near = tree.find_named(tree.files[file].stem, folder)
            if near and isinstance(content, Exception):
                findings.given_images += 1
                detail = f"{file} cannot be read: {content}"
                error_ = UnusableError("annotation_malformed", detail)
                findings.skip_image(error_, near[0], tree.files[near[0]], split=group)
            continue
        findings.given_images += 1
        findings.given_objects += len(content["shapes"])
        try:
            name = _image_of(file, content, tree)
        except UnusableError as error:
            lost = len(content["shapes"])
            findings.skip_image(error, file, None, split=group, objects=lost)
            continue
        size_wh = declared_size(content.get("imageWidth"), content.get("imageHeight"))
        objects = [_object(n, shape) for n, shape in enumerate(content["shapes"], start=1)]
        yield SourceImage(group, name, tree.files[name], objects, size_wh)


def _image_of(file: str, content: Mapping[str, Any], tree: Tree) -> str:
    """Return the image that a file names, or else the image of the same name.

    Raises:
        UnusableError: if there is none.
    """
    folder, written = folder_of(file), content.get("imagePath")
    try:
        return tree.find_image(str(written or ""), folder)
    except UnusableError as error:
        near = tree.find_named(tree.files[file].stem, folder)
        if len(near) == 1:
            return near[0]
        raise UnusableError(error.kind, error.detail or f"imagePath {shorten(written)}") from error


def _object(number: int, shape: Any) -> SourceObject:
    label = f"shape {number}"
    if not isinstance(shape, dict):
        return SourceObject(label, "", problem="annotation_malformed", detail=shorten(shape))
    name, kind = str(shape.get("label") or ""), str(shape.get("shape_type") or "polygon")
    if not name:
        return SourceObject(label, "", problem="unknown_class", detail="no label")
    try:
        points = [(float(x), float(y)) for x, y in shape["points"]]
        box = _box(kind, points)
    except (LookupError, TypeError, ValueError) as error:
        detail = f"damaged {kind}: {error}"
        return SourceObject(label, name, problem="annotation_malformed", detail=detail)
    if box is None:
        return SourceObject(label, name, problem="unknown_geometry", detail=kind)
    problem = rectangle_problem(*box[0], *box[1])
    if kind == POLYGON and not problem:
        return SourceObject(label, name, points, POLYGON)
    return SourceObject(label, name, box, RECTANGLE, problem, shorten(points))


def _box(kind: str, points: list[Point]) -> tuple[Point, Point] | None:
    """Return the corners of the box around a shape; None for points, which have no box."""
    if kind in ("point", "points"):
        return None
    if kind == "circle":  # the center, and a point on the edge
        (x, y), (edge_x, edge_y) = points
        radius = math.hypot(edge_x - x, edge_y - y)
        return (x - radius, y - radius), (x + radius, y + radius)
    if kind in _TWO_CORNERS and len(points) < 2:
        raise ValueError(f"{counted(len(points), 'point')}")
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return (min(xs), min(ys)), (max(xs), max(ys))
