"""Examination of one image file: format, readability and appearance."""

import base64
import hashlib
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.images.decoding import (
    EXIF_ORIENTATION,
    EXIF_TRANSPOSES,
    is_deep_gray,
    read_rgb,
    read_values,
)
from ..data.images.opening import ImageFileError, max_pixels, open_image
from ..data.images.pixel_range import MIN_LEVELS
from ..misc.errors import DatasetError
from ..misc.text import counted
from .deep_values import DeepValues

Problem = tuple[str, str]  # name of a kind, detail

_GRID = 16  # side of the thumbnail
_FLAT = 2.0  # standard deviation in gray levels, below which images are not compared
_HUGE_FRACTION = 4  # of the limit, above which an image is reported as very large
# Formats that PIL distinguishes, but their extensions do not.
_SAME_FORMAT = {"MPO": "JPEG"}


@dataclass(frozen=True)
class ImageFacts:
    """Facts about one file, read as the trainer reads it."""

    size_wh: tuple[int, int] | None  # as the trainer reads it; None if it is unusable
    problems: tuple[Problem, ...]
    digest: str = ""  # of all pixels
    look: str = ""  # fingerprint; empty for an image without contrast
    deep: DeepValues | None = None  # of a gray image with more than 8 bits

    @property
    def is_used(self) -> bool:
        """Whether the trainer can use the image."""
        return self.size_wh is not None


def examine_image(path: Path, declared_wh: tuple[int, int] | None) -> ImageFacts:
    """Decode an image and collect its problems.

    Args:
        path: the file.
        declared_wh: (width, height) in the annotations, if they declare it.
    """
    problem = _not_a_file(path)
    if problem is not None:
        return ImageFacts(None, (problem,))
    problems: list[Problem] = []
    try:
        with open_image(path) as file:
            # Before the EXIF data of a PNG are read, which decodes it and clears `tile`.
            is_deep, is_deep_color = is_deep_gray(file), ";16" in str(getattr(file, "tile", ""))
            problems += _header_problems(file, path.suffix, is_deep=is_deep or is_deep_color)
        values = read_values(path) if is_deep else None
        deep = None if values is None else DeepValues.of(values)
        pixels = read_rgb(path, declared_wh, pixel_range=None if deep is None else deep.own_range)
    except ImageFileError as error:
        return ImageFacts(None, (*problems, (error.kind, error.reason)))
    except DatasetError as error:
        reason = str(error).removeprefix(f"{path}: ")
        return ImageFacts(None, (*problems, ("size_disagrees", reason)))
    height, width = pixels.shape[:2]
    if is_deep_color and not is_deep:
        levels = len(np.unique(pixels))
        if levels < MIN_LEVELS:
            problems.append(("few_levels", f"{counted(levels, 'gray level')} left"))
    if declared_wh is None:
        problems.append(("size_missing", f"the image is {width}x{height}"))
    digest = hashlib.blake2b(b"%d" % width, digest_size=16)
    digest.update(np.ascontiguousarray(pixels if values is None else values).data)
    look = fingerprint(pixels)
    return ImageFacts((width, height), tuple(problems), digest.hexdigest(), look, deep)


def _not_a_file(path: Path) -> Problem | None:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        if path.is_symlink():
            return "dead_link", f"points to {path.readlink()}"
        return "unreadable_image", getattr(error, "strerror", None) or str(error)
    if not stat.S_ISREG(status.st_mode):
        return "not_a_file", "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
    if status.st_size == 0:
        return "empty_file", ""
    return None


def _header_problems(file: Image.Image, suffix: str, *, is_deep: bool) -> Iterator[Problem]:
    """Yield problems that the header shows."""
    width, height = file.size
    kind = _SAME_FORMAT.get(str(file.format), str(file.format))
    named = Image.registered_extensions().get(suffix.lower())
    if _SAME_FORMAT.get(str(named), named) != kind:
        yield "wrong_extension", f"holds {kind}"
    if width * height > max_pixels() // _HUGE_FRACTION:
        yield "huge_image", f"{width}x{height}"
    turn = file.getexif().get(EXIF_ORIENTATION, 1)
    if turn in EXIF_TRANSPOSES:
        yield "exif_rotated", f"orientation {turn}, stored as {width}x{height}"
    # An MPO file holds a preview, which is not a second page.
    if file.format != "MPO" and getattr(file, "is_animated", False):
        yield ("multi_page_image" if kind == "TIFF" else "animated_image"), f"a {kind}"
    if file.mode == "F":
        yield "float_image", f"a {kind}"
    elif is_deep:
        yield "deep_image", f"a {kind}"
    if file.mode == "CMYK":
        yield "cmyk_image", f"a {kind}"


def fingerprint(pixels: np.ndarray) -> str:
    """Return a thumbnail of 16 x 16 gray levels, to compare the appearance of images.

    Size and compression hardly change it; `directions` removes brightness and contrast.

    Args:
        pixels: [H, W, 3] uint8 RGB.

    Returns:
        256 bytes in base64; empty for an image without contrast.
    """
    image = Image.fromarray(pixels).resize((_GRID, _GRID), Image.Resampling.BOX).convert("L")
    gray = np.asarray(image)
    return "" if gray.std() < _FLAT else base64.b64encode(gray.tobytes()).decode("ascii")


def directions(fingerprints: Sequence[str]) -> np.ndarray:
    """Return unit vectors whose dot products are the correlations of images.

    Args:
        fingerprints: N non-empty ones.

    Returns:
        [N, 256] float32.
    """
    joined = b"".join(base64.b64decode(text) for text in fingerprints)
    gray = np.frombuffer(joined, np.uint8).reshape(-1, _GRID**2).astype(np.float32)
    gray -= gray.mean(axis=1, keepdims=True)
    return gray / np.linalg.norm(gray, axis=1, keepdims=True)
