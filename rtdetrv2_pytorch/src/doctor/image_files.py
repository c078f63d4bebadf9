"""One image file: what it is, whether the trainer can read it, and what it looks like."""

import base64
import hashlib
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.images.decoding import (
    DECODE_ERRORS,
    EXIF_ORIENTATION,
    EXIF_TRANSPOSES,
    MAX_PIXELS,
    read_rgb,
    strict_pil,
)
from ..misc.errors import DatasetError

Problem = tuple[str, str]  # name of a kind, detail

_TRUNCATED = ("truncated", "not enough image data", "unexpected end", "premature")
_GRID = 16  # side of the gray picture that tells how an image looks
_FLAT = 2.0  # gray levels: a picture with less contrast has nothing to compare
# Several extensions are in use for one format; PIL knows them by another name, or not at all.
_SAME_FORMAT = {"MPO": "JPEG", "JPEG2000": "JPEG 2000"}


@dataclass(frozen=True)
class Picture:
    """What is known of one file after it was read as the trainer reads it."""

    size_wh: tuple[int, int] | None  # as the trainer sees it; None: it cannot be used
    problems: tuple[Problem, ...]
    digest: str = ""  # of all pixels
    look: str = ""  # fingerprint; empty for a picture without contrast

    @property
    def is_used(self) -> bool:
        """Whether the trainer can use it."""
        return self.size_wh is not None


def examine_picture(path: Path, declared_wh: tuple[int, int] | None) -> Picture:
    """Decode an image and say what is odd about it.

    Args:
        path: the file.
        declared_wh: (width, height) that the annotations give, if they do.
    """
    broken = _no_file(path)
    if broken is not None:
        return Picture(None, (broken,))
    problems: list[Problem] = []
    try:
        with strict_pil, Image.open(path) as file:
            problems += _oddities(file, path.suffix)
    except (*DECODE_ERRORS, Image.DecompressionBombError):
        pass  # reading it tells why
    try:
        pixels = read_rgb(path, declared_wh)
    except DatasetError as error:
        return Picture(None, (*problems, (_kind_of(error), _without_path(error, path))))
    height, width = pixels.shape[:2]
    if declared_wh is None:
        problems.append(("size_missing", f"the picture is {width}x{height}"))
    digest = hashlib.blake2b(b"%d" % width, digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return Picture((width, height), tuple(problems), digest.hexdigest(), fingerprint(pixels))


def _no_file(path: Path) -> Problem | None:
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


def _kind_of(error: DatasetError) -> str:
    """Why the trainer cannot read it: by the error behind its message, or by its own check."""
    if error.__cause__ is None:
        return "size_disagrees"
    if isinstance(error.__cause__, Image.DecompressionBombError):
        return "bomb"
    text = str(error.__cause__).lower()
    return "truncated_image" if any(word in text for word in _TRUNCATED) else "unreadable_image"


def _without_path(error: DatasetError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ").replace(repr(str(path)), path.name)


def _oddities(file: Image.Image, suffix: str) -> Iterator[Problem]:
    """What a file is, told by its header."""
    width, height = file.size
    kind = _SAME_FORMAT.get(str(file.format), str(file.format))
    named = Image.registered_extensions().get(suffix.lower())
    if _SAME_FORMAT.get(str(named), named) != kind:
        yield "wrong_extension", f"holds {kind}"
    if width * height > MAX_PIXELS:
        yield "huge_image", f"{width}x{height}"
    turn = file.getexif().get(EXIF_ORIENTATION, 1)
    if turn in EXIF_TRANSPOSES:
        yield "exif_rotated", f"orientation {turn}, stored as {width}x{height}"
    # A camera's preview beside the picture is no second page.
    if file.format != "MPO" and getattr(file, "is_animated", False):
        yield ("multi_page_image" if kind == "TIFF" else "animated_image"), f"a {kind}"
    if file.mode == "F":
        yield "float_image", f"a {kind}"
    elif file.mode.startswith("I") or ";16" in str(getattr(file, "tile", "")):
        yield "deep_image", f"a {kind}"
    if file.mode == "CMYK":
        yield "cmyk_image", f"a {kind}"


def fingerprint(pixels: np.ndarray) -> str:
    """A picture so small that only its look is left: 16 x 16 gray levels.

    Size and compression hardly change it; `directions` leave out brightness and contrast.

    Args:
        pixels: [H, W, 3] uint8 RGB.

    Returns:
        256 bytes in base64, or nothing for a picture without contrast.
    """
    image = Image.fromarray(pixels).resize((_GRID, _GRID), Image.Resampling.BOX).convert("L")
    gray = np.asarray(image)
    return "" if gray.std() < _FLAT else base64.b64encode(gray.tobytes()).decode("ascii")


def directions(fingerprints: Sequence[str]) -> np.ndarray:
    """Unit vectors whose products are the correlations of pictures: 1 for the same look.

    Args:
        fingerprints: N of them, none empty.

    Returns:
        [N, 256] float32.
    """
    joined = b"".join(base64.b64decode(text) for text in fingerprints)
    gray = np.frombuffer(joined, np.uint8).reshape(-1, _GRID**2).astype(np.float32)
    gray -= gray.mean(axis=1, keepdims=True)
    return gray / np.linalg.norm(gray, axis=1, keepdims=True)
