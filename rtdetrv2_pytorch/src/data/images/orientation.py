"""Image files with their EXIF orientation: size, integrity, and rotation of points."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..findings import UnusableError
from .decoding import EXIF_ORIENTATION
from .opening import ImageFileError, open_image

SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
_DRAFT = 8  # JPEG decoders produce an image of 1/8 of the size much faster

Point = tuple[float, float]


@dataclass(frozen=True)
class OrientedImage:
    """An image file that can be read."""

    stored_wh: tuple[int, int]
    orientation: int  # of EXIF; 1 is upright

    @property
    def size_wh(self) -> tuple[int, int]:
        """(width, height) of the upright image, which the platform shows and stores."""
        width, height = self.stored_wh
        return (height, width) if self.orientation in SIDEWAYS else (width, height)

    def is_annotated_as_stored(self, declared_wh: tuple[int, int] | None) -> bool:
        """Return whether annotations of this declared size refer to the image before turning.

        Raises:
            UnusableError: if the declared size is that of another image.
        """
        if declared_wh is None or declared_wh == self.size_wh:
            return False
        if declared_wh == self.stored_wh:
            return True
        raise UnusableError(
            "size_disagrees",
            f"the image is {self.size_wh[0]}x{self.size_wh[1]}, but {declared_wh[0]}x"
            f"{declared_wh[1]} in the annotations",
        )

    def turn(self, points: Sequence[Point]) -> list[Point]:
        """Map points of the stored image to the upright image."""
        width, height = self.stored_wh
        return [_turn(x, y, width, height, self.orientation) for x, y in points]


def read_oriented(path: Path, *, decode: bool = True) -> OrientedImage:
    """Read the size and orientation of an image file.

    Args:
        path: the file.
        decode: also decode the file, which is the only way to detect that its end is missing.

    Raises:
        UnusableError: if it is missing, damaged, or not an image.
    """
    try:
        with open_image(path) as file:
            width, height = file.size
            orientation = file.getexif().get(EXIF_ORIENTATION, 1)
        if decode:
            with open_image(path, decode=True, draft_wh=(width // _DRAFT, height // _DRAFT)):
                pass
    except ImageFileError as error:
        detail = "" if error.kind == "missing_image" else error.reason
        raise UnusableError(error.kind, detail) from error
    return OrientedImage((width, height), orientation if orientation in range(2, 9) else 1)


def _turn(x: float, y: float, width: int, height: int, orientation: int) -> Point:
    if orientation in SIDEWAYS:
        # Orientations 5 to 8 are 1 to 4 of the image with its axes swapped.
        x, y, width, height = y, x, height, width
    flip_x = orientation in (2, 3, 6, 7)
    flip_y = orientation in (3, 4, 7, 8)
    return (width - x if flip_x else x), (height - y if flip_y else y)
