"""Clipping of annotated shapes to their image."""

import math
from collections.abc import Sequence

from ..findings import UnusableError
from .source import Point, rectangle_problem


def clip_box(corners: Sequence[Point], size_wh: tuple[int, int]) -> list[Point]:
    """Clip a rectangle to its image.

    Args:
        corners: two opposite corners, as edges.
        size_wh: (width, height) of the image.

    Raises:
        UnusableError: if no area is left.
    """
    (x1, y1), (x2, y2) = corners
    left, right, top, bottom = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
    if problem := rectangle_problem(left, top, right, bottom):
        raise UnusableError(problem)
    width, height = size_wh
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if right <= left or bottom <= top:
        raise UnusableError("box_outside")
    return [(left, top), (right, bottom)]


def clip_polygon(points: Sequence[Point], size_wh: tuple[int, int]) -> list[Point]:
    """Move the corners of a polygon onto its image.

    Raises:
        UnusableError: if no area is left.
    """
    if len(points) < 3:
        raise UnusableError("annotation_malformed", "polygon with less than three corners")
    if not all(math.isfinite(value) for point in points for value in point):
        raise UnusableError("box_not_finite")
    xs, ys = [x for x, _ in points], [y for _, y in points]
    clip_box([(min(xs), min(ys)), (max(xs), max(ys))], size_wh)
    width, height = size_wh
    return [(min(max(x, 0), width), min(max(y, 0), height)) for x, y in points]
