"""Small images with boxes, arranged in rows."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from ..misc.drawing import Shape, box_shape, draw_shapes

CELL_PX, GAP_PX = 300, 4
GAP_COLOR = (96, 104, 116)
_CLASS_COLORS = (
    (55, 214, 122), (255, 92, 92), (255, 194, 51), (98, 170, 255), (214, 130, 255),
    (70, 220, 230), (255, 140, 190), (190, 230, 70),
)  # fmt: skip


def normalized_shapes(
    boxes_cxcywh: np.ndarray,
    labels: Tensor | np.ndarray,
    image: Tensor,
    names: Sequence[str] | None = None,
) -> list[Shape]:
    """Return the boxes of an augmented image, in its pixels.

    Args:
        boxes_cxcywh: [N, 4], 0..1.
        labels: [N].
        image: [3, H, W].
        names: of the classes, written above the boxes; None: no text.
    """
    height, width = image.shape[1:]
    cx, cy, w, h = boxes_cxcywh.T
    scale = np.array([width, height, width, height])
    boxes_xyxy_px = np.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), axis=1) * scale
    return [
        box_shape(box, class_color(label), label=names[label] if names else "")
        for box, label in zip(boxes_xyxy_px, labels.tolist(), strict=True)
    ]


def class_color(label: int) -> tuple[int, int, int]:
    """Return the color of a class."""
    return _CLASS_COLORS[label % len(_CLASS_COLORS)]


def cell(pixels: np.ndarray, shapes: Sequence[Shape], *, side_px: int = CELL_PX) -> Image.Image:
    """Return an image, whose longer side gets `side_px`, with its shapes."""
    image = Image.fromarray(pixels)
    factor = side_px / max(image.size)
    width, height = (max(1, round(side * factor)) for side in image.size)
    small = image.resize((width, height), Image.Resampling.BILINEAR)
    draw_shapes(small, shapes, image.size)
    return small


def arranged(cells: Sequence[Image.Image], columns: int) -> Image.Image:
    """Arrange cells of `CELL_PX` in rows on gray, because images may have black borders."""
    columns = min(columns, len(cells))
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    width = columns * (CELL_PX + GAP_PX) - GAP_PX
    heights = [max(cell.height for cell in row) for row in rows]
    size = (width, sum(heights) + GAP_PX * (len(rows) - 1))
    canvas = Image.new("RGB", size, GAP_COLOR)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            left = column * (CELL_PX + GAP_PX) + (CELL_PX - cell.width) // 2
            canvas.paste(cell, (left, top + (height - cell.height) // 2))
        top += height + GAP_PX
    return canvas
