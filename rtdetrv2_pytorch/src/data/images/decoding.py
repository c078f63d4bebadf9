"""Decoding of image files of any mode to upright RGB with 8 bits per channel."""

import numpy as np
from PIL import Image

from ...misc.errors import DatasetError
from .opening import Source, open_image
from .pixel_range import PixelRange, to_8_bit

EXIF_ORIENTATION = 0x0112
_BITS, _SAMPLE_FORMAT = 258, 339  # TIFF tags
EXIF_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_SIDEWAYS = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
# Steps through the rows and columns, after rows and columns of sideways images are swapped.
_FLIPS = {
    Image.Transpose.FLIP_LEFT_RIGHT: (1, -1),
    Image.Transpose.ROTATE_180: (-1, -1),
    Image.Transpose.FLIP_TOP_BOTTOM: (-1, 1),
    Image.Transpose.TRANSPOSE: (1, 1),
    Image.Transpose.ROTATE_270: (1, -1),
    Image.Transpose.TRANSVERSE: (-1, -1),
    Image.Transpose.ROTATE_90: (-1, 1),
}
_STRIP_PIXELS = 4_000_000  # converted at once: copies of a large image take gigabytes


def read_rgb(
    source: Source,
    declared_wh: tuple[int, int] | None = None,
    *,
    pixel_range: PixelRange | None = None,
    name: str | None = None,
) -> np.ndarray:
    """Read an image and apply its EXIF orientation.

    If the size in the annotations matches only the image without this rotation, the annotations
    refer to the stored pixels, and the orientation is ignored.

    Args:
        source: path of the file, or an open binary file.
        declared_wh: (width, height) in the annotations, if they have it.
        pixel_range: of gray images with more than 8 bits, see `PixelRange`. Color images with 16
            bits per channel are always scaled by bit depth.
        name: of the image in errors; default: the path.

    Returns:
        [H, W, 3] uint8 RGB, writable.

    Raises:
        ImageFileError: if the file cannot be decoded.
        DatasetError: if its size differs from the annotations.
    """
    with open_image(source, name=name, decode=True) as file:
        pixels = upright_rgb(file, declared_wh, pixel_range=pixel_range)
    height, width = pixels.shape[:2]
    if declared_wh is not None and declared_wh != (width, height):
        raise DatasetError(
            f"{source if name is None else name}: the image is {width}x{height}, but "
            f"{declared_wh[0]}x{declared_wh[1]} in the annotations; the image is skipped because "
            "its boxes would be wrong"
        )
    return pixels


def upright_rgb(
    image: Image.Image,
    declared_wh: tuple[int, int] | None = None,
    *,
    pixel_range: PixelRange | None = None,
) -> np.ndarray:
    """Convert an image of PIL as `read_rgb` does: [H, W, 3] uint8 RGB."""
    turn = EXIF_TRANSPOSES.get(image.getexif().get(EXIF_ORIENTATION, 1))
    is_turned = turn in _SIDEWAYS and image.width != image.height and image.size == declared_wh
    pixels = _to_rgb(image, pixel_range)
    return pixels if turn is None or is_turned else _turned(pixels, turn)


def _turned(pixels: np.ndarray, turn: Image.Transpose) -> np.ndarray:
    if turn in _SIDEWAYS:
        pixels = pixels.transpose(1, 0, 2)
    rows, columns = _FLIPS[turn]
    return np.ascontiguousarray(pixels[::rows, ::columns])


def read_values(source: Source) -> np.ndarray:
    """Read the pixel values of a gray image with more than 8 bits, as stored: [H, W].

    Raises:
        ImageFileError: if the file cannot be decoded.
    """
    with open_image(source, decode=True) as file:
        return _values(file)


def is_deep_gray(image: Image.Image) -> bool:
    """Return whether an image has one channel with more than 8 bits."""
    return image.mode.startswith(("I", "F"))


def _values(image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if image.mode == "I" and tags.get(_BITS) == (32,) and tags.get(_SAMPLE_FORMAT, (1,)) == (1,):
        return values.view(np.uint32)  # PIL returns unsigned integers as signed ones
    return values


def _to_rgb(image: Image.Image, pixel_range: PixelRange | None) -> np.ndarray:
    """Convert any PIL mode; images with more than 8 bits are scaled instead of clipped."""
    if is_deep_gray(image):
        return np.repeat(to_8_bit(_values(image), pixel_range)[..., None], 3, axis=2)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        strip = image if rows >= image.height else image.crop(box)
        if strip.mode in ("P", "PA") and "transparency" in strip.info:
            strip = strip.convert("RGBA")
        rgb = strip if strip.mode == "RGB" else strip.convert("RGB")
        pixels[top : top + rows] = np.asarray(rgb)
    return pixels
