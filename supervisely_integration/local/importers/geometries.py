"""Convert geometries of a Supervisely project on disk to the platform's storage format.

On disk, coordinates are those of pixels. The SDK moves them to edges and centers when it uploads a
project; this module does the same, and rejects unusable objects.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rtdetrv2_pytorch.src.data.findings import UnusableError
from rtdetrv2_pytorch.src.data.images.orientation import OrientedImage
from rtdetrv2_pytorch.src.data.readers.geometry import clip_box
from rtdetrv2_pytorch.src.data.readers.masks import MASKS, check_mask
from rtdetrv2_pytorch.src.data.readers.source import RECTANGLE

JsonObject = dict[str, Any]
Figure = Mapping[str, Any]

_CENTER = 0.5  # of a pixel
_MIN_POINTS = {"polygon": 3, "line": 2, "point": 1}


def to_stored(figure: Figure, image: OrientedImage, *, is_turned: bool) -> JsonObject:
    """Return an object with a `geometryType` as the platform stores it.

    `is_turned`: whether it was drawn on the image before its EXIF rotation.

    Raises:
        UnusableError: if the object cannot be used.
    """
    shape = figure["geometryType"]
    if is_turned and shape not in (RECTANGLE, *_MIN_POINTS):
        detail = f"{shape} drawn before the EXIF rotation of its image"
        raise UnusableError("annotation_malformed", detail)
    convert = _CONVERTERS.get(shape)
    if convert is None:  # three-dimensional and other rare shapes are not changed
        return dict(figure)
    try:
        return {**figure, **convert(figure, image, is_turned)}
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UnusableError("annotation_malformed", f"damaged {shape}: {error}") from error


def _numbers(points: Any) -> list[tuple[float, float]]:
    pairs = [(x, y) for x, y in points]
    for value in (v for pair in pairs for v in pair):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{value!r} is not a number")
        if not math.isfinite(value):
            raise ValueError(f"{value!r} is not finite")
    return pairs


# Each converter returns the fields that change.


def _rectangle(figure: Figure, image: OrientedImage, is_turned: bool) -> JsonObject:
    (x1, y1), (x2, y2) = _numbers(figure["points"]["exterior"])
    corners: Sequence[tuple[float, float]] = [
        (min(x1, x2), min(y1, y2)),
        (max(x1, x2) + 1, max(y1, y2) + 1),  # the last pixel is part of it
    ]
    corners = image.turn(corners) if is_turned else corners
    box = clip_box(corners, image.size_wh)
    return {"points": {"exterior": [list(corner) for corner in box], "interior": []}}


def _points(figure: Figure, image: OrientedImage, is_turned: bool) -> JsonObject:
    shape = figure["geometryType"]
    points = _rings(figure["points"], image, is_turned)
    if len(points["exterior"]) < _MIN_POINTS[shape]:
        raise UnusableError("annotation_malformed", f"{shape} with too few points")
    return {"points": points}


def _rings(part: Mapping[str, Any], image: OrientedImage, is_turned: bool) -> JsonObject:
    def ring(points: Any) -> list[list[float]]:
        moved = [(x + _CENTER, y + _CENTER) for x, y in _numbers(points)]
        return [list(point) for point in (image.turn(moved) if is_turned else moved)]

    exterior = ring(part["exterior"])
    width, height = image.size_wh
    xs, ys = [x for x, _ in exterior], [y for _, y in exterior]
    if max(xs) < 0 or max(ys) < 0 or min(xs) > width or min(ys) > height:
        raise UnusableError("box_outside")
    return {**part, "exterior": exterior, "interior": [ring(p) for p in part.get("interior") or ()]}


def _multipolygon(figure: Figure, image: OrientedImage, is_turned: bool) -> JsonObject:
    parts = [_rings(part, image, is_turned) for part in figure["parts"]]
    if not parts:
        raise ValueError("no parts")
    return {"parts": parts}


def _mask(figure: Figure, image: OrientedImage, is_turned: bool) -> JsonObject:
    check_mask(figure, image.size_wh)
    ((x, y),) = _numbers([figure["bitmap"]["origin"]])
    width, height = image.size_wh
    if x >= width or y >= height:
        raise UnusableError("box_outside")
    return {"bitmap": {**figure["bitmap"], "origin": [math.floor(x), math.floor(y)]}}


def _graph(figure: Figure, image: OrientedImage, is_turned: bool) -> JsonObject:
    def moved(node: JsonObject) -> JsonObject:
        ((x, y),) = _numbers([node["loc"]])
        return {**node, "loc": [math.floor(x) + _CENTER, math.floor(y) + _CENTER]}

    return {"nodes": {key: moved(node) for key, node in figure["nodes"].items()}}


def _oriented(figure: Figure, image: OrientedImage, is_turned: bool) -> JsonObject:
    (x1, y1), (x2, y2) = _numbers(figure["points"])
    right, bottom = max(x1, x2) + 1, max(y1, y2) + 1
    return {"points": [[min(x1, x2), min(y1, y2)], [right, bottom]]}


_CONVERTERS: Mapping[str, Callable[[Figure, OrientedImage, bool], JsonObject]] = {
    RECTANGLE: _rectangle,
    **dict.fromkeys(_MIN_POINTS, _points),
    "multipolygon": _multipolygon,
    **dict.fromkeys(MASKS, _mask),
    "graph": _graph,
    "oriented_bbox": _oriented,
}
