"""Geometries of a Supervisely project on disk -> as the platform stores them.

On disk coordinates are those of pixels. The SDK moves them to edges and centres when it uploads a
project; this does the same, object by object, and says which objects cannot be used.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rtdetrv2_pytorch.src.misc.errors import DatasetError

from ...masks import MASKS, check_mask
from .decoding import Picture, clip_box
from .source import RECTANGLE

JsonObject = dict[str, Any]
Figure = Mapping[str, Any]

_CENTRE = 0.5  # of a pixel
_FEWEST_POINTS = {"polygon": 3, "line": 2, "point": 1}


def to_stored(figure: Figure, picture: Picture, *, is_turned: bool) -> JsonObject:
    """An object as the platform stores it.

    Args:
        figure: object of an annotation file, with its `geometryType`.
        picture: the image it is on.
        is_turned: it was drawn on the image before its EXIF rotation.

    Raises:
        DatasetError: if the object cannot be used; the message is the reason.
    """
    shape = figure["geometryType"]
    if is_turned and shape not in (RECTANGLE, *_FEWEST_POINTS):
        raise DatasetError(f"{shape} drawn before the EXIF rotation of its image")
    convert = _CONVERTERS.get(shape)
    if convert is None:  # three-dimensional and other rare ones: as they are
        return dict(figure)
    try:
        return {**figure, **convert(figure, picture, is_turned)}
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DatasetError("damaged geometry") from error


def _numbers(points: Any) -> list[tuple[float, float]]:
    pairs = [(x, y) for x, y in points]
    for value in (v for pair in pairs for v in pair):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{value!r} is no number")
        if not math.isfinite(value):
            raise ValueError(f"{value!r} is no number")
    return pairs


# Each of these gives the fields that change.


def _rectangle(figure: Figure, picture: Picture, is_turned: bool) -> JsonObject:
    (x1, y1), (x2, y2) = _numbers(figure["points"]["exterior"])
    corners: Sequence[tuple[float, float]] = [
        (min(x1, x2), min(y1, y2)),
        (max(x1, x2) + 1, max(y1, y2) + 1),  # the last pixel is part of it
    ]
    corners = picture.turn(corners) if is_turned else corners
    box = clip_box(corners, picture.size_wh)
    return {"points": {"exterior": [list(corner) for corner in box], "interior": []}}


def _points(figure: Figure, picture: Picture, is_turned: bool) -> JsonObject:
    shape = figure["geometryType"]
    points = _rings(figure["points"], picture, is_turned)
    if len(points["exterior"]) < _FEWEST_POINTS[shape]:
        raise DatasetError(f"{shape} with too few corners")
    return {"points": points}


def _rings(part: Mapping[str, Any], picture: Picture, is_turned: bool) -> JsonObject:
    def ring(points: Any) -> list[list[float]]:
        moved = [(x + _CENTRE, y + _CENTRE) for x, y in _numbers(points)]
        return [list(point) for point in (picture.turn(moved) if is_turned else moved)]

    exterior = ring(part["exterior"])
    width, height = picture.size_wh
    xs, ys = [x for x, _ in exterior], [y for _, y in exterior]
    if max(xs) < 0 or max(ys) < 0 or min(xs) > width or min(ys) > height:
        raise DatasetError("object outside of its image")
    return {**part, "exterior": exterior, "interior": [ring(p) for p in part.get("interior") or ()]}


def _multipolygon(figure: Figure, picture: Picture, is_turned: bool) -> JsonObject:
    parts = [_rings(part, picture, is_turned) for part in figure["parts"]]
    if not parts:
        raise ValueError("no parts")
    return {"parts": parts}


def _mask(figure: Figure, picture: Picture, is_turned: bool) -> JsonObject:
    check_mask(figure, picture.size_wh)
    ((x, y),) = _numbers([figure["bitmap"]["origin"]])
    width, height = picture.size_wh
    if x >= width or y >= height:
        raise DatasetError("object outside of its image")
    return {"bitmap": {**figure["bitmap"], "origin": [math.floor(x), math.floor(y)]}}


def _graph(figure: Figure, picture: Picture, is_turned: bool) -> JsonObject:
    def moved(node: JsonObject) -> JsonObject:
        ((x, y),) = _numbers([node["loc"]])
        return {**node, "loc": [math.floor(x) + _CENTRE, math.floor(y) + _CENTRE]}

    return {"nodes": {key: moved(node) for key, node in figure["nodes"].items()}}


def _oriented(figure: Figure, picture: Picture, is_turned: bool) -> JsonObject:
    (x1, y1), (x2, y2) = _numbers(figure["points"])
    right, bottom = max(x1, x2) + 1, max(y1, y2) + 1
    return {"points": [[min(x1, x2), min(y1, y2)], [right, bottom]]}


_CONVERTERS: Mapping[str, Callable[[Figure, Picture, bool], JsonObject]] = {
    RECTANGLE: _rectangle,
    **dict.fromkeys(_FEWEST_POINTS, _points),
    "multipolygon": _multipolygon,
    **dict.fromkeys(MASKS, _mask),
    "graph": _graph,
    "oriented_bbox": _oriented,
}
