"""Outlines of annotated objects, in pixels of their image."""

from collections.abc import Mapping
from typing import Any

from rtdetrv2_pytorch.src.data.readers.masks import MASKS, mask_size

Outline = dict[str, Any]  # {"kind": "box" | "polygon" | "line" | "point", "points": [[x, y], ..]}

_MAX_MASK_BYTES = 1 << 24


def outlines(figure: Mapping[str, Any]) -> list[Outline]:
    """Return the outlines of an object; none if its geometry is not 2D or is invalid."""
    try:
        return _outlines(figure)
    except (LookupError, TypeError, ValueError, AttributeError):
        return []


def _outlines(figure: Mapping[str, Any]) -> list[Outline]:
    shape = figure["geometryType"]
    if shape == "rectangle":
        return [_box(figure["points"]["exterior"])]
    if shape in ("polygon", "line", "point"):
        return [{"kind": shape, "points": _points(figure["points"]["exterior"])}]
    if shape == "multipolygon":
        rings = (part["exterior"] for part in figure["parts"])
        return [{"kind": "polygon", "points": _points(ring)} for ring in rings]
    if shape in MASKS:
        x, y = figure["bitmap"]["origin"]
        width, height = mask_size(figure, _MAX_MASK_BYTES)
        return [_box([[x, y], [x + width, y + height]])]
    if shape == "graph":
        nodes = (node["loc"] for node in figure["nodes"].values())
        return [{"kind": "point", "points": [each]} for each in _points(nodes)]
    if shape == "oriented_bbox":
        return [_box(figure["points"])]  # without rotation
    return []


def _points(points: Any) -> list[list[float]]:
    return [[float(x), float(y)] for x, y in points]


def _box(corners: Any) -> Outline:
    points = _points(corners)
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return {"kind": "box", "points": [[min(xs), min(ys)], [max(xs), max(ys)]]}
