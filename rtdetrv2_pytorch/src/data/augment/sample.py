"""An image with boxes on its way through the augmentation, pixels touched as late as possible.

Zooming out, cropping and flipping only move a window over the source image; colours only note
what to do. The pixels are computed once, by `materialize`, and only those that survived: a crop
of a third of an image costs a third, and zooming out fourfold does not build a canvas of sixteen
times the size.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import resize

PixelOp = Callable[[Tensor], Tensor]


@dataclass
class Sample:
    """One image with its boxes.

    The image lies on a canvas, which is what the boxes refer to and what will be the result;
    parts of the image may be outside (cropped), parts of the canvas empty (zoomed out).
    """

    image: Tensor  # [3, h, w] uint8, the source
    boxes: np.ndarray  # [N, 4] xyxy in canvas pixels, until ConvertBoxes
    labels: np.ndarray  # [N] int64
    area: np.ndarray  # [N], in pixels of the original image
    canvas_hw: tuple[int, int] = (0, 0)
    origin_xy: tuple[int, int] = (0, 0)  # of the image's top left corner on the canvas
    is_flipped: bool = False  # the canvas is to be mirrored at the end
    fill: int = 0  # value of empty canvas
    pixel_ops: list[PixelOp] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.canvas_hw == (0, 0):
            self.canvas_hw = (self.image.shape[1], self.image.shape[2])
        # The part of the image that no crop has cut off: (x1, y1, x2, y2) in its own pixels.
        self._shown = (0, 0, self.image.shape[2], self.image.shape[1])

    def keep(self, mask: np.ndarray) -> None:
        """Drop the boxes outside a [N] bool mask, with everything that belongs to them."""
        self.boxes, self.labels, self.area = self.boxes[mask], self.labels[mask], self.area[mask]

    def set_window(
        self, left: int, top: int, width: int, height: int, *, fill: int | None = None
    ) -> None:
        """Make a window of the canvas the new canvas; it may extend beyond the old one.

        Args:
            left: of the window, in canvas pixels.
            top: of the window, in canvas pixels.
            width: of the window.
            height: of the window.
            fill: value of what lies beyond the old canvas; default: as before.
        """
        if fill is not None and fill != self.fill:
            if self._has_empty_canvas():
                self.materialize()  # with its own fill
            self.fill = fill
        canvas_height, canvas_width = self.canvas_hw
        mirrored_left = canvas_width - left - width if self.is_flipped else left
        self.origin_xy = (self.origin_xy[0] - mirrored_left, self.origin_xy[1] - top)
        self.canvas_hw = (height, width)
        x1, y1, x2, y2 = self._visible()  # what is cropped off must not come back
        x, y = self.origin_xy
        self._shown = (x1 - x, y1 - y, x2 - x, y2 - y)
        self.boxes = self.boxes - np.array([left, top, left, top], dtype=self.boxes.dtype)

    def clip_boxes(self) -> None:
        """Cut boxes off at the canvas."""
        height, width = self.canvas_hw
        self.boxes = self.boxes.clip(0, (width, height, width, height))

    def flip(self) -> None:
        """Mirror the canvas left to right."""
        width = self.canvas_hw[1]
        self.boxes = self.boxes[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (width, 0, width, 0)
        self.is_flipped = not self.is_flipped

    def add_pixel_op(self, op: PixelOp) -> None:
        """Note a change of colours; it applies to the image, so a filled canvas is built first."""
        if self._has_empty_canvas():
            self.materialize()
        self.pixel_ops.append(op)

    def _visible(self) -> tuple[int, int, int, int]:
        """The part of the image on the canvas: (x1, y1, x2, y2) in canvas pixels."""
        (x, y), (height, width), (x1, y1, x2, y2) = self.origin_xy, self.canvas_hw, self._shown
        return max(x + x1, 0), max(y + y1, 0), min(x + x2, width), min(y + y2, height)

    def _has_empty_canvas(self) -> bool:
        height, width = self.canvas_hw
        return self._visible() != (0, 0, width, height)

    def materialize(
        self,
        size_hw: tuple[int, int] | None = None,
        *,
        mode: InterpolationMode = InterpolationMode.BILINEAR,
        antialias: bool = True,
    ) -> None:
        """Compute the pixels of the canvas, at another size if one is given; boxes follow."""
        height, width = self.canvas_hw
        out_height, out_width = size_hw or self.canvas_hw
        scale_x, scale_y = out_width / width, out_height / height

        x1, y1, x2, y2 = self._visible()
        if x2 <= x1 or y2 <= y1:
            out = self.image.new_full((3, out_height, out_width), self.fill)
        else:
            left, top = x1 - self.origin_xy[0], y1 - self.origin_xy[1]
            region = self.image[:, top : top + y2 - y1, left : left + x2 - x1]
            # Where the image ends on the result, to the nearest pixel.
            ox1, ox2 = round(x1 * scale_x), max(round(x2 * scale_x), round(x1 * scale_x) + 1)
            oy1, oy2 = round(y1 * scale_y), max(round(y2 * scale_y), round(y1 * scale_y) + 1)
            region = self._paint(region, (oy2 - oy1, ox2 - ox1), mode, antialias)
            if region.shape[1:] == (out_height, out_width):
                out = region
            else:
                out = region.new_full((3, out_height, out_width), self.fill)
                visible_height, visible_width = out_height - oy1, out_width - ox1
                out[:, oy1:oy2, ox1:ox2] = region[:, :visible_height, :visible_width]
        self.image = out.flip(-1) if self.is_flipped else out
        # Multiplied before divided: what ends at the border ends exactly at the border.
        self.boxes = self.boxes * (out_width, out_height, out_width, out_height)
        self.boxes = self.boxes / (width, height, width, height)
        self.canvas_hw, self.origin_xy = (out_height, out_width), (0, 0)
        self._shown = (0, 0, out_width, out_height)
        self.is_flipped = False
        self.pixel_ops = []

    def _paint(
        self, region: Tensor, size_hw: tuple[int, int], mode: InterpolationMode, antialias: bool
    ) -> Tensor:
        """Resize and recolour a region; colours first or last, whichever has fewer pixels.

        Each pixel is recoloured for itself, so the order matters only by rounding.
        """
        is_shrunk = size_hw[0] * size_hw[1] < region.shape[1] * region.shape[2]
        if not is_shrunk:
            region = self._recolour(region)
        if size_hw != tuple(region.shape[1:]):
            region = resize(region, list(size_hw), interpolation=mode, antialias=antialias)
        return self._recolour(region) if is_shrunk else region

    def _recolour(self, region: Tensor) -> Tensor:
        for op in self.pixel_ops:
            region = op(region)
        return region
