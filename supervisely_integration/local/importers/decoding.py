"""Image files: whether they can be read, how large they are, and what turning them does."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from rtdetrv2_pytorch.src.data.images.decoding import DECODE_ERRORS, EXIF_ORIENTATION, strict_pil
from rtdetrv2_pytorch.src.misc.errors import DatasetError

_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
_DRAFT = 8  # JPEG decoders can make a picture of 1/8 of the size much faster

Point = tuple[float, float]


@dataclass(frozen=True)
class Picture:
    """An image file that can be read."""

    stored_wh: tuple[int, int]
    orientation: int  # of EXIF; 1 is upright

    @property
    def size_wh(self) -> tuple[int, int]:
        """(width, height) of the upright picture: what the platform shows and stores."""
        width, height = self.stored_wh
        return (height, width) if self.orientation in _SIDEWAYS else (width, height)

    def is_drawn_before_turning(self, declared_wh: tuple[int, int] | None) -> bool:
        """Whether annotations of this declared size were drawn on the picture as stored.

        Raises:
            DatasetError: if the declared size is that of another picture.
        """
        if declared_wh is None or declared_wh == self.size_wh:
            return False
        if declared_wh == self.stored_wh:
            return True
        raise DatasetError(
            f"the image is {self.size_wh[0]}x{self.size_wh[1]}, its annotations are for "
            f"{declared_wh[0]}x{declared_wh[1]}"
        )

    def turn(self, points: Sequence[Point]) -> list[Point]:
        """Move points of the picture as stored to where they are on the upright one."""
        width, height = self.stored_wh
        return [_turn(x, y, width, height, self.orientation) for x, y in points]


def _turn(x: float, y: float, width: int, height: int, orientation: int) -> Point:
    if orientation in _SIDEWAYS:
        # Orientations 5 to 8 are the first four of the picture with its axes swapped.
        x, y, width, height = y, x, height, width
    flip_x = orientation in (2, 3, 6, 7)
    flip_y = orientation in (3, 4, 7, 8)
    return (width - x if flip_x else x), (height - y if flip_y else y)


def read_picture(path: Path) -> Picture:
    """Read an image file to its end.

    Raises:
        DatasetError: if it is missing, damaged, or no image; the message fits behind its name.
    """
    try:
        with strict_pil, Image.open(path) as file:
            width, height = file.size
            orientation = file.getexif().get(EXIF_ORIENTATION, 1)
            # Decoding all of it is the only way to notice that the end is missing.
            file.draft("RGB", (width // _DRAFT, height // _DRAFT))
            file.load()
    except FileNotFoundError as error:
        raise DatasetError("image file missing") from error
    except Image.DecompressionBombError as error:
        raise DatasetError("image is too large to be decoded safely") from error
    except DECODE_ERRORS as error:
        raise DatasetError("image cannot be read") from error
    return Picture((width, height), orientation if orientation in range(2, 9) else 1)


def upright_contents(path: Path) -> bytes | None:
    """The file with its pixels turned upright, if its EXIF data say that it lies on its side.

    Programs differ in whether the size of such a file is that before or after turning; turned on
    the way in, it has one size for all. None for all other files, which stay as they are.
    """
    with Image.open(path) as file:
        if file.getexif().get(EXIF_ORIENTATION, 1) not in _SIDEWAYS:
            return None
        turned = ImageOps.exif_transpose(file)
        buffer = io.BytesIO()
        options = {"quality": 95} if file.format in ("JPEG", "MPO", "WEBP") else {}
        turned.save(buffer, "JPEG" if file.format == "MPO" else file.format, **options)
        return buffer.getvalue()


def clip_box(corners: Sequence[Point], size_wh: tuple[int, int]) -> list[Point]:
    """The part of a box that is on its image.

    Args:
        corners: two opposite ones, edges.
        size_wh: (width, height) of the image.

    Raises:
        DatasetError: if there is none; the message is the reason.
    """
    (x1, y1), (x2, y2) = corners
    if not all(math.isfinite(v) for v in (x1, y1, x2, y2)):
        raise DatasetError("box that is not four numbers")
    left, right, top, bottom = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
    if right <= left or bottom <= top:
        raise DatasetError("box without area")
    width, height = size_wh
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if right <= left or bottom <= top:
        raise DatasetError("box outside of its image")
    return [(left, top), (right, bottom)]


def clip_polygon(points: Sequence[Point], size_wh: tuple[int, int]) -> list[Point]:
    """A polygon with its corners moved onto its image.

    Raises:
        DatasetError: if nothing of it is left; the message is the reason.
    """
    if len(points) < 3:
        raise DatasetError("polygon of less than three corners")
    if not all(math.isfinite(v) for point in points for v in point):
        raise DatasetError("polygon whose corners are not numbers")
    xs, ys = [x for x, _ in points], [y for _, y in points]
    try:
        clip_box([(min(xs), min(ys)), (max(xs), max(ys))], size_wh)
    except DatasetError as error:
        raise DatasetError(str(error).replace("box", "polygon")) from error
    width, height = size_wh
    return [(min(max(x, 0), width), min(max(y, 0), height)) for x, y in points]
