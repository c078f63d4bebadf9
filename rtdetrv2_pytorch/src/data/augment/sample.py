"""An image with boxes during augmentation. Pixels are computed lazily.

Zoom, crop, flips and quarter turns only move a window over the source image, rotations only change
a matrix, and color changes are only recorded. `materialize` computes the remaining pixels once: a
crop of a third of the image costs a third, and zooming out by 4 does not allocate a canvas of 16
times the size.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from ..images.resizing import Interpolation, resize
from .warping import corner_boxes, shift, stretch, warp_pixels, warp_source

PixelOp = Callable[[Tensor], Tensor]


@dataclass
class Sample:
    """One image with its boxes.

    The image is placed on a canvas, which becomes the result. Boxes are in canvas coordinates.
    Parts of the image may be outside the canvas (cropped) and parts of the canvas may be empty
    (zoomed out).
    """

    image: Tensor  # [3, h, w] uint8, the source
    boxes: np.ndarray  # [N, 4] xyxy in canvas pixels, until ConvertBoxes
    labels: np.ndarray  # [N] int64
    area: np.ndarray  # [N], in pixels of the original image
    canvas_hw: tuple[int, int] = (0, 0)
    origin_xy: tuple[int, int] = (0, 0)  # of the image's top left corner before flips and turns
    # How `materialize` orients the canvas: it transposes first, then flips.
    is_flipped: bool = False  # left to right
    is_flipped_vertically: bool = False
    is_transposed: bool = False
    fill: int = 0  # pixel value of empty canvas
    pixel_ops: list[PixelOp] = field(default_factory=list)
    skips: tuple[str, ...] = ()  # types of operations that leave the sample as it is
    crowd_boxes: np.ndarray = field(default_factory=lambda: np.empty((0, 4)))  # [C, 4], as boxes
    crowd_labels: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # [C]

    def __post_init__(self) -> None:
        if self.canvas_hw == (0, 0):
            self.canvas_hw = (self.image.shape[1], self.image.shape[2])
        # The part of the image that was not cropped: (x1, y1, x2, y2) in image pixels.
        self._shown = (0, 0, self.image.shape[2], self.image.shape[1])
        # A pending warp [3, 3]: maps the canvas to one of size `_source_hw`, to which window and
        # orientation refer.
        self._warp: np.ndarray | None = None
        self._source_hw = self.canvas_hw

    def keep(self, mask: np.ndarray) -> None:
        """Keep the boxes selected by a [N] bool mask, with their labels and areas."""
        self.boxes, self.labels, self.area = self.boxes[mask], self.labels[mask], self.area[mask]

    def add_objects(self, boxes: np.ndarray, labels: np.ndarray, area: np.ndarray) -> None:
        """Append objects: boxes [n, 4] on the canvas, labels [n] and areas [n]."""
        self.boxes = np.concatenate((self.boxes, boxes))
        self.labels = np.concatenate((self.labels, labels))
        self.area = np.concatenate((self.area, area))

    def set_window(
        self, left: int, top: int, width: int, height: int, *, fill: int | None = None
    ) -> None:
        """Replace the canvas by a window of it, which may extend beyond the old canvas.

        Args:
            left: of the window, in canvas pixels.
            top: of the window, in canvas pixels.
            width: of the window.
            height: of the window.
            fill: pixel value outside the old canvas; default: unchanged.
        """
        if fill is not None and fill != self.fill:
            if self._has_empty_canvas():
                self.materialize()  # with the previous fill
            self.fill = fill
        self._move_window(left, top, width, height)
        self.move_boxes(lambda boxes: boxes - np.array([left, top, left, top], dtype=boxes.dtype))

    def _move_window(self, left: int, top: int, width: int, height: int) -> None:
        canvas_height, canvas_width = self.canvas_hw
        if self._warp is not None:
            is_inside = left >= 0 and top >= 0
            if is_inside and left + width <= canvas_width and top + height <= canvas_height:
                self._warp, self.canvas_hw = self._warp @ shift(left, top), (height, width)
                return
            self.materialize()  # cropped parts stay cropped
        if self.is_flipped:
            left = canvas_width - left - width
        if self.is_flipped_vertically:
            top = canvas_height - top - height
        self.canvas_hw = (height, width)
        if self.is_transposed:
            left, top = top, left
        self.origin_xy = (self.origin_xy[0] - left, self.origin_xy[1] - top)
        x1, y1, x2, y2 = self._visible()  # cropped parts stay cropped
        x, y = self.origin_xy
        self._shown = (x1 - x, y1 - y, x2 - x, y2 - y)

    def move_boxes(self, move: Callable[[np.ndarray], np.ndarray]) -> None:
        """Apply a function to the [N, 4] boxes of objects, and to those of crowd regions."""
        self.boxes = move(self.boxes)
        if len(self.crowd_boxes):
            self.crowd_boxes = move(self.crowd_boxes)

    def centers_inside(self) -> np.ndarray:
        """Return whether the center of each box is on the canvas: [N] bool."""
        centers = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2
        inside: np.ndarray = ((centers > 0) & (centers < self.canvas_hw[::-1])).all(axis=1)
        return inside

    def clip_boxes(self) -> None:
        """Clip boxes to the canvas."""
        height, width = self.canvas_hw
        self.boxes = self.boxes.clip(0, (width, height, width, height))

    def flip(self) -> None:
        """Flip the canvas left to right."""
        width = self.canvas_hw[1]
        self.move_boxes(
            lambda boxes: boxes[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (width, 0, width, 0)
        )
        if self._warp is not None:
            self._warp = self._warp @ shift(width, 0) @ stretch(-1, 1)
        else:
            self.is_flipped = not self.is_flipped

    def flip_vertically(self) -> None:
        """Flip the canvas top to bottom."""
        height = self.canvas_hw[0]
        self.move_boxes(
            lambda boxes: boxes[:, [0, 3, 2, 1]] * (1, -1, 1, -1) + (0, height, 0, height)
        )
        if self._warp is not None:
            self._warp = self._warp @ shift(0, height) @ stretch(1, -1)
        else:
            self.is_flipped_vertically = not self.is_flipped_vertically

    def transpose(self) -> None:
        """Swap rows and columns of the canvas."""
        self.move_boxes(lambda boxes: boxes[:, [1, 0, 3, 2]])
        self.canvas_hw = (self.canvas_hw[1], self.canvas_hw[0])
        if self._warp is not None:
            self._warp = self._warp[:, [1, 0, 2]]
            return
        self.is_flipped, self.is_flipped_vertically = self.is_flipped_vertically, self.is_flipped
        self.is_transposed = not self.is_transposed

    def turn(self, quarters: int) -> None:
        """Turn the canvas counterclockwise by a multiple of 90 degrees."""
        if quarters % 2:
            self.transpose()
            self.flip_vertically()
        if quarters % 4 >= 2:
            self.flip()
            self.flip_vertically()

    def warp(self, matrix: np.ndarray, *, fill: int = 0) -> None:
        """Move the content of the canvas by an affine map; the canvas keeps its size.

        A box becomes the smallest box with the corners of the moved one.

        Args:
            matrix: [3, 3], maps (x, y, 1) in canvas pixels to the new position.
            fill: pixel value of empty canvas.
        """
        if self._warp is not None or (fill != self.fill and self._has_empty_canvas()):
            self.materialize()
        self.fill, self._source_hw = fill, self.canvas_hw
        self._warp = np.linalg.inv(matrix)
        self.move_boxes(lambda boxes: corner_boxes(boxes, matrix))

    def add_pixel_op(self, op: PixelOp) -> None:
        """Record a color change of the image; a canvas with empty parts is materialized first."""
        if self._has_empty_canvas():
            self.materialize()
        self.pixel_ops.append(op)

    def _visible(self) -> tuple[int, int, int, int]:
        """Return the part of the canvas with image pixels, before it is oriented: xyxy."""
        (x, y), (height, width), (x1, y1, x2, y2) = self.origin_xy, self._inner_hw(), self._shown
        return max(x + x1, 0), max(y + y1, 0), min(x + x2, width), min(y + y2, height)

    def _inner_hw(self, size_hw: tuple[int, int] | None = None) -> tuple[int, int]:
        """Return a size, by default that of the canvas, before the canvas is oriented."""
        height, width = size_hw or self.canvas_hw
        return (width, height) if self.is_transposed else (height, width)

    def _has_empty_canvas(self) -> bool:
        height, width = self._inner_hw()
        return self._warp is not None or self._visible() != (0, 0, width, height)

    def materialize(
        self,
        size_hw: tuple[int, int] | None = None,
        *,
        mode: Interpolation = "bilinear",
        antialias: bool = True,
    ) -> None:
        """Compute the pixels of the canvas, resized to `size_hw` with the boxes if given."""
        height, width = self.canvas_hw
        out_height, out_width = size_hw or self.canvas_hw
        if self._warp is None:
            out = self._oriented(self._compute((out_height, out_width), mode, antialias))
        else:
            out = self._compute_warped((out_height, out_width), mode, antialias)
        self.image = out
        # Multiply before dividing, so that boxes that end at the border still do exactly.
        self.move_boxes(lambda boxes: boxes * (out_width, out_height, out_width, out_height))
        self.move_boxes(lambda boxes: boxes / (width, height, width, height))
        self.canvas_hw, self.origin_xy = (out_height, out_width), (0, 0)
        self._shown = (0, 0, out_width, out_height)
        self.is_flipped = self.is_flipped_vertically = self.is_transposed = False
        self._warp = None
        self.pixel_ops = []

    def _oriented(self, pixels: Tensor) -> Tensor:
        if self.is_transposed:
            pixels = pixels.transpose(1, 2)
        dims = [2] * self.is_flipped + [1] * self.is_flipped_vertically
        return pixels.flip(dims) if dims else pixels

    def _compute(self, size_hw: tuple[int, int], mode: Interpolation, antialias: bool) -> Tensor:
        """Compute the pixels of the canvas at a size, without its orientation."""
        (height, width), (out_height, out_width) = self._inner_hw(), self._inner_hw(size_hw)
        scale_x, scale_y = out_width / width, out_height / height
        x1, y1, x2, y2 = self._visible()
        if x2 <= x1 or y2 <= y1:
            return self.image.new_full((3, out_height, out_width), self.fill)
        left, top = x1 - self.origin_xy[0], y1 - self.origin_xy[1]
        region = self.image[:, top : top + y2 - y1, left : left + x2 - x1]
        # Borders of the image in the result, rounded to pixels.
        ox1, ox2 = round(x1 * scale_x), max(round(x2 * scale_x), round(x1 * scale_x) + 1)
        oy1, oy2 = round(y1 * scale_y), max(round(y2 * scale_y), round(y1 * scale_y) + 1)
        region = self._render(region, (oy2 - oy1, ox2 - ox1), mode, antialias)
        if region.shape[1:] == (out_height, out_width):
            return region
        out = region.new_full((3, out_height, out_width), self.fill)
        visible_height, visible_width = out_height - oy1, out_width - ox1
        out[:, oy1:oy2, ox1:ox2] = region[:, :visible_height, :visible_width]
        return out

    def _compute_warped(
        self, size_hw: tuple[int, int], mode: Interpolation, antialias: bool
    ) -> Tensor:
        """Compute the needed part of the canvas before the warp, shrunk if needed; warp it."""
        assert self._warp is not None
        matrix = self._warp @ stretch(
            self.canvas_hw[1] / size_hw[1], self.canvas_hw[0] / size_hw[0]
        )
        needed, shrunk_hw = warp_source(matrix, size_hw, self._source_hw)
        if needed is None:
            return self.image.new_full((3, *size_hw), self.fill)
        left, top, right, bottom = needed
        self._warp, self.canvas_hw = None, self._source_hw
        self._move_window(left, top, right - left, bottom - top)
        pixels = self._oriented(self._compute(shrunk_hw, mode, antialias))
        to_shrunk = stretch(shrunk_hw[1] / (right - left), shrunk_hw[0] / (bottom - top))
        return warp_pixels(
            pixels, to_shrunk @ shift(-left, -top) @ matrix, size_hw, mode=mode, fill=self.fill
        )

    def _render(
        self, region: Tensor, size_hw: tuple[int, int], mode: Interpolation, antialias: bool
    ) -> Tensor:
        """Resize a region and change its colors, in the order that changes fewer pixels.

        Colors change per pixel, so the order affects rounding only.
        """
        is_shrunk = size_hw[0] * size_hw[1] < region.shape[1] * region.shape[2]
        if not is_shrunk:
            region = self._change_colors(region)
        if size_hw != tuple(region.shape[1:]):
            region = resize(region, size_hw, mode=mode, antialias=antialias)
        return self._change_colors(region) if is_shrunk else region

    def _change_colors(self, region: Tensor) -> Tensor:
        for op in self.pixel_ops:
            region = op(region)
        return region
