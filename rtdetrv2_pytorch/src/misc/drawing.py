"""Draw boxes, polygons and labels on images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from .errors import ConfigError
from .text import printable

Rectangle = tuple[float, float, float, float]  # x1, y1, x2, y2

_FONT_PX = 11
_MAX_LABEL_LETTERS = 20
_POINT_RADIUS_PX = 3


@dataclass(frozen=True)
class Shape:
    """A geometry to draw.

    Attributes:
        points: (x, y) each, in pixels of the source image; of a box, two opposite corners.
        color: anything that PIL accepts as a color.
        kind: how to connect the points; a polygon is closed, a line is not.
        label: text above the first point of a box; "" draws none.
        line_px: line width.
    """

    points: Sequence[tuple[float, float]]
    color: str | tuple[int, int, int]
    kind: Literal["box", "polygon", "line", "point"] = "box"
    label: str = ""
    line_px: int = 2


def box_shape(
    xyxy: Iterable[float], color: str | tuple[int, int, int], *, label: str = "", line_px: int = 2
) -> Shape:
    """Return the shape of a box given as x1, y1, x2, y2."""
    x1, y1, x2, y2 = (float(value) for value in xyxy)
    return Shape([(x1, y1), (x2, y2)], color, label=label, line_px=line_px)


def draw_shapes(
    image: Image.Image,
    shapes: Iterable[Shape],
    source_size_wh: tuple[int, int] | None = None,
    *,
    font_px: int = _FONT_PX,
) -> None:
    """Draw shapes on an image, in place.

    Box edges outside the image are drawn along its border. A label that would overlap an earlier
    label is omitted.

    Args:
        image: RGB.
        shapes: in drawing order.
        source_size_wh: (width, height) that the points refer to; None: the size of `image`.
        font_px: height of the letters of labels.
    """
    canvas = ImageDraw.Draw(image)
    source_wh = source_size_wh or image.size
    scale_x, scale_y = (new / max(old, 1) for new, old in zip(image.size, source_wh, strict=True))
    labels: list[tuple[Shape, tuple[float, float]]] = []
    for shape in shapes:
        points = [(x * scale_x, y * scale_y) for x, y in shape.points]
        if shape.kind == "box":
            points = [_into_image(point, image.size) for point in points]
        _draw(canvas, shape, points)
        if shape.label:
            labels.append((shape, points[0]))
    _draw_labels(canvas, labels, font_px)


def _into_image(point: tuple[float, float], size_wh: tuple[int, int]) -> tuple[float, float]:
    return min(max(point[0], 0), size_wh[0] - 1), min(max(point[1], 0), size_wh[1] - 1)


def _draw(canvas: ImageDraw.ImageDraw, shape: Shape, points: Sequence[tuple[float, float]]) -> None:
    if shape.kind == "box":
        (x1, y1), (x2, y2) = points
        corners = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
        canvas.rectangle(corners, outline=shape.color, width=shape.line_px)
    elif shape.kind == "point":
        x, y = points[0]
        r = _POINT_RADIUS_PX
        canvas.ellipse([x - r, y - r, x + r, y + r], fill=shape.color)
    elif len(points) > 1:
        connected = [*points, points[0]] if shape.kind == "polygon" else points
        canvas.line(connected, fill=shape.color, width=shape.line_px)


def _draw_labels(
    canvas: ImageDraw.ImageDraw, labels: Sequence[tuple[Shape, tuple[float, float]]], font_px: int
) -> None:
    font = ImageFont.load_default(size=font_px)
    texts = [_shortened(shape.label) for shape, _ in labels]
    places = [(x + 2, max(y - font_px - 2, 0)) for _, (x, y) in labels]
    rectangles = [
        canvas.textbbox(place, text, font=font) for place, text in zip(places, texts, strict=True)
    ]
    for i in non_overlapping(rectangles):
        color = labels[i][0].color
        canvas.text(
            places[i], texts[i], fill=color, font=font, stroke_width=2, stroke_fill=(0, 0, 0)
        )


def _shortened(text: str) -> str:
    cut = text if len(text) <= _MAX_LABEL_LETTERS else f"{text[: _MAX_LABEL_LETTERS - 1]}~"
    return printable(cut)


def save_picture(picture: Image.Image, path: Path, *, quality: int) -> None:
    """Write a picture in the format of the suffix; create the folder.

    Raises:
        ConfigError: if the file is not writable, or its suffix is not that of an image.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, quality=quality)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: cannot be written ({error}); choose another path, ending in .jpg or .png"
        ) from error


def non_overlapping(rectangles: Sequence[Rectangle]) -> list[int]:
    """Select rectangles that overlap no earlier selected one; return their indices."""
    selected: list[int] = []
    for i, (x1, y1, x2, y2) in enumerate(rectangles):
        others = (rectangles[j] for j in selected)
        if all(min(x2, c) <= max(x1, a) or min(y2, d) <= max(y1, b) for a, b, c, d in others):
            selected.append(i)
    return selected
