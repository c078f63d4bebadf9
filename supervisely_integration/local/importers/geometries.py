"""Geometries of a Supervisely project on disk -> as the platform stores them.

On disk coordinates are those of pixels. The SDK moves them to edges and centres when it uploads a
project; this does the same, object by object, and says which objects cannot be used.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rtdetrv2_pytorch.src.misc.errors import DatasetError

from ...masks import MASKS, check_mask
from .pictures import Picture, clip_box
from .source import RECTANGLE

JsonObject = dict[str, Any]

_CENTRE = 0.5  # of a pixel
_OF_POINTS = ("polygon", "line", "point")
_FEWEST_POINTS = {"polygon": 3, "line": 2, "point": 1}
_DAMAGED = "damaged geometry"


def to_stored(figure: Mapping[str, Any], shape: str, picture: Picture, *, is_turned: bool) -> Any:
    """The geometry fields of an object as the platform stores them.

    Args:
        figure: object of an annotation file.
        shape: its geometry type.
        picture: the image it is on.
        is_turned: it was drawn on the image before its EXIF rotation.

    Raises:
        DatasetError: if the object cannot be used; the message is the reason.
    """
    convert = _CONVERTERS.get(shape)
    if is_turned and shape not in (RECTANGLE, *_OF_POINTS):
        raise DatasetError(f"{shape} drawn before the EXIF rotation of its image")
    try:
        if convert is None:
            return copy.deepcopy(dict(figure))  # three-dimensional and other rare ones: as they are
        return convert(copy.deepcopy(dict(figure)), picture, is_turned)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DatasetError(_DAMAGED) from error


def _numbers(points: Any) -> list[tuple[float, float]]:
    pairs = [(x, y) for x, y in points]
    for value in (v for pair in pairs for v in pair):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{value!r} is no number")
        if not math.isfinite(value):
            raise ValueError(f"{value!r} is no number")
    return pairs


def _rectangle(figure: JsonObject, picture: Picture, is_turned: bool) -> JsonObject:
    (x1, y1), (x2, y2) = _numbers(figure["points"]["exterior"])
    corners: Sequence[tuple[float, float]] = [
        (min(x1, x2), min(y1, y2)),
        (max(x1, x2) + 1, max(y1, y2) + 1),  # the last pixel is part of it
    ]
    corners = picture.turn(corners) if is_turned else corners
    box = clip_box(corners, picture.size_wh)
    figure["points"] = {"exterior": [list(corner) for corner in box], "interior": []}
    return figure


def _points(figure: JsonObject, picture: Picture, is_turned: bool) -> JsonObject:
    shape = figure.get("geometryType") or figure.get("shape") or ""
    figure["points"] = _rings(figure["points"], picture, is_turned)
    if len(figure["points"]["exterior"]) < _FEWEST_POINTS.get(shape, 1):
        raise DatasetError(f"{shape} with too few corners")
    return figure


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


def _multipolygon(figure: JsonObject, picture: Picture, is_turned: bool) -> JsonObject:
    figure["parts"] = [_rings(part, picture, is_turned) for part in figure["parts"]]
    if not figure["parts"]:
        raise ValueError("no parts")
    return figure


def _mask(figure: JsonObject, picture: Picture, is_turned: bool) -> JsonObject:
    mask = figure["bitmap"]
    check_mask(figure, picture.size_wh)
    ((x, y),) = _numbers([mask["origin"]])
    width, height = picture.size_wh
    if x >= width or y >= height:
        raise DatasetError("object outside of its image")
    mask["origin"] = [math.floor(x), math.floor(y)]
    return figure


def _graph(figure: JsonObject, picture: Picture, is_turned: bool) -> JsonObject:
    for node in figure["nodes"].values():
        ((x, y),) = _numbers([node["loc"]])
        node["loc"] = [math.floor(x) + _CENTRE, math.floor(y) + _CENTRE]
    return figure


def _oriented(figure: JsonObject, picture: Picture, is_turned: bool) -> JsonObject:
    (x1, y1), (x2, y2) = _numbers(figure["points"])
    right, bottom = max(x1, x2) + 1, max(y1, y2) + 1
    figure["points"] = [[min(x1, x2), min(y1, y2)], [right, bottom]]
    return figure


_CONVERTERS: Mapping[str, Callable[[JsonObject, Picture, bool], JsonObject]] = {
    RECTANGLE: _rectangle,
    **dict.fromkeys(_OF_POINTS, _points),
    "multipolygon": _multipolygon,
    **dict.fromkeys(MASKS, _mask),
    "graph": _graph,
    "oriented_bbox": _oriented,
}
