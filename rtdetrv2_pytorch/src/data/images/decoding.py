"""Decoding of image files of any mode to upright RGB with 8 bits per channel."""

import numpy as np
from PIL import Image

from ...misc.errors import DatasetError
from .opening import Source, open_image

EXIF_ORIENTATION = 0x0112
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
    source: Source, declared_wh: tuple[int, int] | None = None, *, name: str | None = None
) -> np.ndarray:
    """Read an image and apply its EXIF orientation.

    If the size in the annotations matches only the image without this rotation, the annotations
    refer to the stored pixels, and the orientation is ignored.

    Args:
        source: path of the file, or an open binary file.
        declared_wh: (width, height) in the annotations, if they have it.
        name: of the image in errors; default: the path.

    Returns:
        [H, W, 3] uint8 RGB, writable.

    Raises:
        ImageFileError: if the file cannot be decoded.
        DatasetError: if its size differs from the annotations.
    """
    with open_image(source, name=name, decode=True) as file:
        turn = EXIF_TRANSPOSES.get(file.getexif().get(EXIF_ORIENTATION, 1))
        is_turned = turn in _SIDEWAYS and file.width != file.height and file.size == declared_wh
        pixels = _to_rgb(file)
    if turn is not None and not is_turned:
        pixels = _turned(pixels, turn)
    height, width = pixels.shape[:2]
    if declared_wh is not None and declared_wh != (width, height):
        raise DatasetError(
            f"{source if name is None else name}: the image is {width}x{height}, but "
            f"{declared_wh[0]}x{declared_wh[1]} in the annotations; the image is skipped because "
            "its boxes would be wrong"
        )
    return pixels


def _turned(pixels: np.ndarray, turn: Image.Transpose) -> np.ndarray:
    if turn in _SIDEWAYS:
        pixels = pixels.transpose(1, 0, 2)
    rows, columns = _FLIPS[turn]
    return np.ascontiguousarray(pixels[::rows, ::columns])


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Convert any PIL mode; 16-bit and float images are scaled instead of clipped."""
    if image.mode.startswith(("I;16", "I", "F")):
        return np.repeat(_to_8_bit(np.asarray(image))[..., None], 3, axis=2)
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


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Scale a gray image with more than 8 bits: integers from 16 bits, floats from 0..1."""
    highest = float(np.nanmax(values, initial=0))
    if np.issubdtype(values.dtype, np.floating) and highest <= 1:
        scale = 255.0
    elif highest <= 255:
        scale = 1.0
    else:
        scale = 255 / 65535
    scaled = np.empty(values.shape, np.uint8)
    rows = max(1, _STRIP_PIXELS // values.shape[1])
    for top in range(0, len(values), rows):
        part = np.nan_to_num(values[top : top + rows].astype(np.float64)) * scale
        scaled[top : top + rows] = np.clip(np.rint(part), 0, 255)
    return scaled
