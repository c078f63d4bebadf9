"""Affine maps of boxes and pixels.

Matrices are [3, 3] and map (x, y, 1) in pixels. The center of the first pixel is (0.5, 0.5).
"""

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..images.resizing import Interpolation

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}
_MARGIN_PX = 2  # of the result, for the filters at the border of the needed part


def shift(x: float, y: float) -> np.ndarray:
    """Return the matrix that adds (x, y)."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=np.float64)


def stretch(x: float, y: float) -> np.ndarray:
    """Return the matrix that multiplies by (x, y)."""
    return np.diag([x, y, 1]).astype(np.float64)


def rotation(degrees: float) -> np.ndarray:
    """Return the matrix of a counterclockwise rotation around (0, 0)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]], dtype=np.float64)


def shear(degrees: float) -> np.ndarray:
    """Return the matrix that moves rows sideways by the tangent of an angle."""
    return np.array([[1, math.tan(math.radians(degrees)), 0], [0, 1, 0], [0, 0, 1]])


def corner_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the smallest boxes with the mapped corners of [N, 4] xyxy boxes."""
    x = boxes[:, [0, 2, 2, 0]] * matrix[0, 0] + boxes[:, [1, 1, 3, 3]] * matrix[0, 1] + matrix[0, 2]
    y = boxes[:, [0, 2, 2, 0]] * matrix[1, 0] + boxes[:, [1, 1, 3, 3]] * matrix[1, 1] + matrix[1, 2]
    return np.stack((x.min(1), y.min(1), x.max(1), y.max(1)), axis=1)


def warp_source(
    matrix: np.ndarray, size_hw: tuple[int, int], source_hw: tuple[int, int]
) -> tuple[tuple[int, int, int, int] | None, tuple[int, int]]:
    """Find which part of a source a warp needs, and at which size.

    A warp reads a few neighbors of each position. A source that it shrinks is resized first, with a
    filter against aliasing. A source that it enlarges is not.

    Args:
        matrix: maps pixels of the result to the source.
        size_hw: of the result.
        source_hw: of the source.

    Returns:
        The part, (x1, y1, x2, y2), None if the result is outside the source; and its (height,
        width) after resizing.
    """
    height, width = size_hw
    margin = _MARGIN_PX
    whole = np.array([[-margin, -margin, width + margin, height + margin]], dtype=np.float64)
    x1, y1, x2, y2 = corner_boxes(whole, matrix)[0]
    left, right = max(math.floor(x1), 0), min(math.ceil(x2), source_hw[1])
    top, bottom = max(math.floor(y1), 0), min(math.ceil(y2), source_hw[0])
    if right <= left or bottom <= top:
        return None, (0, 0)
    per_x, per_y = np.hypot(*np.linalg.inv(matrix)[:2, :2])  # pixels of the result per source pixel
    shrunk = (
        max(round((bottom - top) * min(per_y, 1)), 1),
        max(round((right - left) * min(per_x, 1)), 1),
    )
    return (left, top, right, bottom), shrunk


def warp_pixels(
    pixels: Tensor, matrix: np.ndarray, size_hw: tuple[int, int], *, mode: Interpolation, fill: int
) -> Tensor:
    """Return the pixels of [3, H, W] uint8 at the positions that a matrix maps to.

    Args:
        pixels: the source.
        matrix: maps pixels of the result to the source.
        size_hw: (height, width) of the result.
        mode: interpolation.
        fill: value outside the source.
    """
    warped = to_pillow(pixels).transform(
        (size_hw[1], size_hw[0]),
        Image.Transform.AFFINE,
        tuple(matrix[:2].flatten().tolist()),
        _RESAMPLING[mode],
        fillcolor=(fill, fill, fill),
    )
    return from_pillow(warped)


def to_pillow(pixels: Tensor) -> Image.Image:
    """Convert [3, H, W] uint8 to an image of Pillow."""
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))


def from_pillow(image: Image.Image) -> Tensor:
    """Convert an RGB image of Pillow to [3, H, W] uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
