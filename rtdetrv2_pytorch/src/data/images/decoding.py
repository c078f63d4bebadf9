"""Decoding of image files of any mode to upright RGB with 8 bits per channel."""

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
EXIF_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

MAX_PIXELS = 89_478_485  # PIL's default: it warns above this, and raises above twice this
# PIL raises these for damaged files, depending on the format and the damage.
DECODE_ERRORS = (
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


class _StrictPil:
    """Context in which PIL rejects decompression bombs and truncated files.

    Other libraries disable these checks, which are global. With several threads, the first to enter
    enables the checks and the last to leave restores the previous settings.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_threads = 0
        self._previous: tuple[int | None, bool] = (None, False)

    def __enter__(self) -> None:
        with self._lock:
            if self._num_threads == 0:
                self._previous = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = MAX_PIXELS, False
            self._num_threads += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            self._num_threads -= 1
            if self._num_threads == 0:
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = self._previous


strict_pil = _StrictPil()


def read_rgb(path: Path, declared_wh: tuple[int, int] | None = None) -> np.ndarray:
    """Read an image and apply its EXIF orientation.

    If the size in the annotations matches only the image without this rotation, the annotations
    refer to the stored pixels, and the orientation is ignored.

    Args:
        path: of the file.
        declared_wh: (width, height) in the annotations, if they have it.

    Returns:
        [H, W, 3] uint8 RGB, writable.

    Raises:
        DatasetError: if the file cannot be decoded, or its size differs from the annotations.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would block
            raise OSError("not a regular file")
        with strict_pil, Image.open(path) as file:
            file.load()
            image: Image.Image = file
            turn = EXIF_TRANSPOSES.get(file.getexif().get(EXIF_ORIENTATION, 1))
            if turn is not None:
                upright = file.transpose(turn)
                image = file if upright.size != file.size == declared_wh else upright
            pixels = _to_rgb(image)
    except DECODE_ERRORS as error:
        raise DatasetError(f"{path}: cannot be read as an image ({error})") from error
    except Image.DecompressionBombError as error:
        raise DatasetError(f"{path}: {error}; shrink the image") from error
    height, width = pixels.shape[:2]
    if declared_wh is not None and declared_wh != (width, height):
        raise DatasetError(
            f"{path}: the image is {width}x{height}, but {declared_wh[0]}x{declared_wh[1]} in the "
            "annotations; the image is skipped because its boxes would be wrong"
        )
    return pixels


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Convert any PIL mode; 16-bit and float images are scaled instead of clipped."""
    if image.mode.startswith(("I;16", "I", "F")):
        return np.repeat(_to_8_bit(np.asarray(image))[..., None], 3, axis=2)
    if image.mode in ("P", "PA") and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Scale a gray image with more than 8 bits: integers from 16 bits, floats from 0..1."""
    highest = float(np.nanmax(values, initial=0))
    if np.issubdtype(values.dtype, np.floating) and highest <= 1:
        scale = 255.0
    elif highest <= 255:
        scale = 1.0
    else:
        scale = 255 / 65535
    scaled = np.nan_to_num(values.astype(np.float64)) * scale
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
