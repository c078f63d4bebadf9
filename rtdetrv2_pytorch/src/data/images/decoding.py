"""Reading image files: whatever they hold becomes upright RGB with 8 bits a channel."""

import stat
import struct
import threading
import zlib
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image, ImageFile

from ...misc.errors import DatasetError

EXIF_ORIENTATION = 0x0112
TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

MAX_PIXELS = 89_478_485  # PIL's own: it warns beyond, and refuses beyond the double
# What a damaged file may raise depends on its format and on the place of the damage.
DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
)


class _Checks:
    """Lets PIL refuse bombs and torn files; other libraries switch that off for the process.

    The settings belong to the process and threads read images side by side: the first one to enter
    sets them, the last one to leave puts back what was there.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._before: tuple[int | None, bool] = (None, False)

    def __enter__(self) -> None:
        with self._lock:
            if self._readers == 0:
                self._before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = MAX_PIXELS, False
            self._readers += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers == 0:
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = self._before


pil_checks = _Checks()


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
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise OSError("it is no file")
        with pil_checks, Image.open(path) as file:
            file.load()
            image: Image.Image = file
            turn = TO_UPRIGHT.get(file.getexif().get(EXIF_ORIENTATION, 1))
            if turn is not None:
                upright = file.transpose(turn)
                image = file if upright.size != file.size == declared_wh else upright
            pixels = _to_rgb(image)
    except DAMAGED as error:
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
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


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
