"""Opening of image files: allowed formats, limits of size and memory, errors of decoders.

All images of the trainer, the apps and the local instance are opened here.
"""

import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from ...misc.errors import ConfigError, DatasetError, RTDETRError
from ...misc.resources import release_freed_memory
from ...misc.text import counted

Source = str | Path | BinaryIO

MAX_PIXELS_SETTING = "RTDETR_MAX_IMAGE_PIXELS"  # environment variable
DEFAULT_MAX_PIXELS = 100_000_000  # 10,000 x 10,000; decoding takes 7 bytes per pixel
# PIL has decoders for 50 formats. Some start other programs, such as Ghostscript for EPS.
# JPEG includes MPO.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "HEIF")
_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    *(".avif", ".heic", ".heif"),
}
_TRUNCATED = ("truncated", "not enough image data", "unexpected end", "premature")
_LARGE_PIXELS = 10_000_000
_BITS, _CHANNELS = 258, 277  # TIFF tags
_MAX_CHANNELS = 4
_SUPPORTED = (
    ", which is not supported; save it with at most 4 channels: gray with up to 32 bits, or color "
    "with 8 or 16 bits"
)
_NO_PIXELS = Image.new("1", (1, 1)).im


class ImageFileError(DatasetError):
    """An image that cannot be used.

    Args:
        name: of the image.
        reason: why, and what to do.
        kind: of the finding: missing_image, unreadable_image, truncated_image or bomb.
    """

    def __init__(self, name: str, reason: str, kind: str) -> None:
        super().__init__(name, reason, kind)  # all, so that the error can be pickled
        self.name = name
        self.reason = reason
        self.kind = kind

    def __str__(self) -> str:
        if self.kind == "bomb":
            return f"{self.name}: {self.reason}"
        return f"{self.name}: cannot be read as an image ({self.reason})"


def is_image(path: Path) -> bool:
    """Return whether a file has the name of an image: by its extension, in any case.

    The name may start with a dot, but not with "._": macOS stores attributes of files under
    such names.
    """
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith("._")


def is_hidden(path: Path) -> bool:
    """Return whether a file or folder is hidden and not an image."""
    return path.name.startswith(".") and not is_image(path)


def max_pixels() -> int:
    """Return the limit of pixels, for one image and for all that are decoded at once.

    Raises:
        ConfigError: if the setting is not a positive integer.
    """
    text = os.environ.get(MAX_PIXELS_SETTING, "").strip()
    if not text:
        return DEFAULT_MAX_PIXELS
    if not text.isdecimal() or int(text) == 0:
        raise ConfigError(f"{MAX_PIXELS_SETTING} = {text!r}: give a number of pixels above 0")
    return int(text)


class Budget:
    """Limits what several threads hold at once.

    Args:
        limit: returns the largest sum; default: `max_pixels`.
        unit: in errors.
    """

    def __init__(self, limit: Callable[[], int] | None = None, unit: str = "pixels") -> None:
        self._limit, self._unit = limit or max_pixels, unit
        self.reset()
        os.register_at_fork(after_in_child=self.reset)  # which has no other threads

    def reset(self) -> None:
        """Forget all reservations."""
        self._changed = threading.Condition()
        self._used = 0

    @contextmanager
    def reserve(self, amount: int, timeout_s: float | None = None) -> Iterator[None]:
        """Wait until the amount fits, and hold it in a context.

        Raises:
            TimeoutError: if it does not fit in time.
        """
        limit = self._limit()
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._used == 0 or self._used + amount <= limit, timeout_s
            ):
                raise TimeoutError(f"no memory for {amount:,} {self._unit} within {timeout_s:g} s")
            self._used += amount
        try:
            yield
        finally:
            with self._changed:
                self._used -= amount
                self._changed.notify_all()


_decoding = Budget()


@contextmanager
def open_image(
    source: Source,
    *,
    name: str | None = None,
    decode: bool = False,
    draft_wh: tuple[int, int] | None = None,
) -> Iterator[Image.Image]:
    """Open an image file; the size, format and metadata are known, the pixels after decoding.

    Args:
        source: path, or a binary file that can seek.
        name: in errors; default: the path.
        decode: whether to decode the pixels. Waits while other threads decode as much as
            `max_pixels` allows.
        draft_wh: (width, height) that suffices; JPEG files are decoded much faster at a fraction
            of their size.

    Raises:
        ImageFileError: if the file is missing, of another format, too large or damaged; also for
            any error in the context that is not an RTDETRError.
    """
    name = str(source) if name is None else name
    source = Path(source) if isinstance(source, str) else source
    pixels = 0
    try:
        if isinstance(source, Path) and not stat.S_ISREG(source.stat().st_mode):
            raise OSError("not a regular file")  # opening a pipe would block
        with _strict_pil, Image.open(source, formats=_formats()) as file:
            _check_size(file, source, name)
            _check_channels(file, name)
            if draft_wh is not None:
                file.draft("RGB", draft_wh)
            pixels = file.width * file.height if decode else 0
            waiting: AbstractContextManager[None] = (
                _decoding.reserve(pixels) if decode else nullcontext()
            )
            with waiting:
                try:
                    if decode:
                        file.load()
                    yield file
                finally:  # free the pixels before another thread decodes; the source stays open
                    file.im = _NO_PIXELS
    except RTDETRError:
        raise
    except Exception as error:  # noqa: BLE001 (decoders raise any kind of exception)
        detail = str(error).replace(repr(str(source)), Path(name).name) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            detail = _unsupported_tiff(source) or (
                f"the content is none of {', '.join(_formats())}; save it as JPEG or PNG"
            )
        raise ImageFileError(name, detail, _kind_of_damage(error)) from error
    finally:
        if pixels > _LARGE_PIXELS:
            release_freed_memory()


def _check_size(file: Image.Image, source: Path | BinaryIO, name: str) -> None:
    width, height = file.size
    if width * height <= max_pixels():
        return
    if isinstance(source, str | Path):
        num_bytes = Path(source).stat().st_size
    else:
        num_bytes = source.seek(0, os.SEEK_END)
    raise ImageFileError(
        name,
        f"{width}x{height} = {width * height:,} pixels in a file of {num_bytes:,} bytes; the limit "
        f"is {max_pixels():,}. Shrink the image, cut it into tiles, or set {MAX_PIXELS_SETTING}",
        "bomb",
    )


def _check_channels(file: Image.Image, name: str) -> None:
    """Reject TIFF files of which PIL would silently drop channels."""
    channels = getattr(file, "tag_v2", {}).get(_CHANNELS, 1)
    if channels > _MAX_CHANNELS:
        raise ImageFileError(
            name, f"{counted(channels, 'channel')}{_SUPPORTED}", "unreadable_image"
        )


def _unsupported_tiff(source: Path | BinaryIO) -> str | None:
    """Describe the pixels of a TIFF file that PIL cannot decode; None for another file."""
    try:
        with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
            file.seek(0)
            header = file.read(8)
            if header[:4] not in TiffImagePlugin.PREFIXES:
                return None
            if b"\x2b" in header[2:4]:  # BigTIFF
                header += file.read(8)
            tags = TiffImagePlugin.ImageFileDirectory_v2(header)
            file.seek(tags.next)
            tags.load(file)
            channels, bits = tags.get(_CHANNELS, 1), max(tags.get(_BITS, (1,)))
    except Exception:  # noqa: BLE001 (damaged files)
        return None
    return f"TIFF with {counted(channels, 'channel')} of {bits} bits{_SUPPORTED}"


@cache
def _formats() -> tuple[str, ...]:
    """Return the allowed formats that the installed libraries can decode."""
    with suppress(ImportError):
        import pillow_heif  # type: ignore[import-not-found, unused-ignore]

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(each for each in _FORMATS if each in Image.OPEN)


def _kind_of_damage(error: BaseException) -> str:
    """Return the kind of finding for an error of the decoder."""
    if isinstance(error, FileNotFoundError):
        return "missing_image"
    text = str(error).lower()
    return "truncated_image" if any(word in text for word in _TRUNCATED) else "unreadable_image"


class _StrictPil:
    """Context in which PIL rejects truncated files, and leaves the size to `_check_size`.

    Other libraries change these global settings. With several threads, the first to enter changes
    them and the last to leave restores the previous ones.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_threads = 0
        self._previous: tuple[int | None, bool] = (None, False)

    def __enter__(self) -> None:
        with self._lock:
            if self._num_threads == 0:
                self._previous = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
            self._num_threads += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._num_threads -= 1
            if self._num_threads == 0:
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = self._previous


_strict_pil = _StrictPil()
