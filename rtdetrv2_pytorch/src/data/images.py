"""Reading image files: whatever they hold becomes upright RGB with 8 bits a channel."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from ..misc.errors import DatasetError

_EXIF_ORIENTATION = 0x0112
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_MAX_PIXELS = 89_478_485  # PIL's own: it warns beyond, and refuses beyond the double


@contextmanager
def _with_checks() -> Iterator[None]:
    """Let PIL refuse bombs and torn files; other libraries switch that off for the process."""
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = _MAX_PIXELS, False
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


def read_rgb(path: Path, declared_wh: tuple[int, int] | None = None) -> np.ndarray:
    """Read an image.

    The orientation that a camera stored is applied. If the annotations declare a size that fits
    only the picture as stored, they were drawn on that, and it is left as it is.

    Args:
        path: the file.
        declared_wh: (width, height) that the annotations give, if they do.

    Returns:
        [H, W, 3] uint8 RGB, writable.

    Raises:
        DatasetError: if the file cannot be read, or has neither way round the declared size.
    """
    try:
        with _with_checks(), Image.open(path) as file:
            file.load()
            image: Image.Image = file
            turn = _TO_UPRIGHT.get(file.getexif().get(_EXIF_ORIENTATION, 1))
            if turn is not None:
                upright = file.transpose(turn)
                image = file if upright.size != file.size == declared_wh else upright
            pixels = _to_rgb(image)
    except (OSError, ValueError, SyntaxError, RuntimeError, UnidentifiedImageError) as error:
        raise DatasetError(f"{path}: cannot be read as an image ({error})") from error
    except Image.DecompressionBombError as error:
        raise DatasetError(f"{path}: {error}; shrink the image") from error
    height, width = pixels.shape[:2]
    if declared_wh is not None and declared_wh != (width, height):
        raise DatasetError(
            f"{path}: the image is {width}x{height}, its annotations say "
            f"{declared_wh[0]}x{declared_wh[1]}; boxes would be wrong, so it is not used"
        )
    return pixels


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Convert any PIL mode; 16-bit and float images are scaled, not cut off."""
    if image.mode.startswith(("I;16", "I", "F")):
        return np.repeat(_to_8_bit(np.asarray(image))[..., None], 3, axis=2)
    if image.mode in ("P", "PA") and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Scale a gray image of more than 8 bits: integers by their 16-bit range, floats by 0..1."""
    highest = float(np.nanmax(values, initial=0))
    if np.issubdtype(values.dtype, np.floating) and highest <= 1:
        scale = 255.0
    elif highest <= 255:
        scale = 1.0
    else:
        scale = 255 / 65535
    scaled = np.nan_to_num(values.astype(np.float64)) * scale
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
