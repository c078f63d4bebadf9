"""An image with boxes during augmentation. Pixels are computed lazily.

Zoom, crop and flip only move a window over the source image, and color changes are only recorded.
`materialize` computes the remaining pixels once: a crop of a third of the image costs a third, and
zooming out by 4 does not allocate a canvas of 16 times the size.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from ..images.resizing import Interpolation, resize

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
    origin_xy: tuple[int, int] = (0, 0)  # of the image's top left corner on the canvas
    is_flipped: bool = False  # whether `materialize` flips the canvas
    fill: int = 0  # pixel value of empty canvas
    pixel_ops: list[PixelOp] = field(default_factory=list)
    crowd_boxes: np.ndarray = field(default_factory=lambda: np.empty((0, 4)))  # [C, 4], as boxes
    crowd_labels: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # [C]

    def __post_init__(self) -> None:
        if self.canvas_hw == (0, 0):
            self.canvas_hw = (self.image.shape[1], self.image.shape[2])
        # The part of the image that was not cropped: (x1, y1, x2, y2) in image pixels.
        self._shown = (0, 0, self.image.shape[2], self.image.shape[1])

    def keep(self, mask: np.ndarray) -> None:
        """Keep the boxes selected by a [N] bool mask, with their labels and areas."""
        self.boxes, self.labels, self.area = self.boxes[mask], self.labels[mask], self.area[mask]

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
        canvas_height, canvas_width = self.canvas_hw
        mirrored_left = canvas_width - left - width if self.is_flipped else left
        self.origin_xy = (self.origin_xy[0] - mirrored_left, self.origin_xy[1] - top)
        self.canvas_hw = (height, width)
        x1, y1, x2, y2 = self._visible()  # cropped parts stay cropped
        x, y = self.origin_xy
        self._shown = (x1 - x, y1 - y, x2 - x, y2 - y)
        self.move_boxes(lambda boxes: boxes - np.array([left, top, left, top], dtype=boxes.dtype))

    def move_boxes(self, move: Callable[[np.ndarray], np.ndarray]) -> None:
        """Apply a function to the [N, 4] boxes of objects, and to those of crowd regions."""
        self.boxes = move(self.boxes)
        if len(self.crowd_boxes):
            self.crowd_boxes = move(self.crowd_boxes)

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
        self.is_flipped = not self.is_flipped

    def add_pixel_op(self, op: PixelOp) -> None:
        """Record a color change of the image; a canvas with empty parts is materialized first."""
        if self._has_empty_canvas():
            self.materialize()
        self.pixel_ops.append(op)

    def _visible(self) -> tuple[int, int, int, int]:
        """Return the part of the canvas with image pixels: (x1, y1, x2, y2) in canvas pixels."""
        (x, y), (height, width), (x1, y1, x2, y2) = self.origin_xy, self.canvas_hw, self._shown
        return max(x + x1, 0), max(y + y1, 0), min(x + x2, width), min(y + y2, height)

    def _has_empty_canvas(self) -> bool:
        height, width = self.canvas_hw
        return self._visible() != (0, 0, width, height)

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
        scale_x, scale_y = out_width / width, out_height / height

        x1, y1, x2, y2 = self._visible()
        if x2 <= x1 or y2 <= y1:
            out = self.image.new_full((3, out_height, out_width), self.fill)
        else:
            left, top = x1 - self.origin_xy[0], y1 - self.origin_xy[1]
            region = self.image[:, top : top + y2 - y1, left : left + x2 - x1]
            # Borders of the image in the result, rounded to pixels.
            ox1, ox2 = round(x1 * scale_x), max(round(x2 * scale_x), round(x1 * scale_x) + 1)
            oy1, oy2 = round(y1 * scale_y), max(round(y2 * scale_y), round(y1 * scale_y) + 1)
            region = self._render(region, (oy2 - oy1, ox2 - ox1), mode, antialias)
            if region.shape[1:] == (out_height, out_width):
                out = region
            else:
                out = region.new_full((3, out_height, out_width), self.fill)
                visible_height, visible_width = out_height - oy1, out_width - ox1
                out[:, oy1:oy2, ox1:ox2] = region[:, :visible_height, :visible_width]
        self.image = out.flip(-1) if self.is_flipped else out
        # Multiply before dividing, so that boxes that end at the border still do exactly.
        self.move_boxes(lambda boxes: boxes * (out_width, out_height, out_width, out_height))
        self.move_boxes(lambda boxes: boxes / (width, height, width, height))
        self.canvas_hw, self.origin_xy = (out_height, out_width), (0, 0)
        self._shown = (0, 0, out_width, out_height)
        self.is_flipped = False
        self.pixel_ops = []

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
