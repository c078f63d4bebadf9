"""Caches of decoded images in memory or on disk, so that files are decoded only once.

Caches store the pixels before augmentation at full size: a crop is resized after it is cut out, so
a smaller image would change the result.
"""

import hashlib
import logging
import mmap
import os
import shlex
import shutil
import struct
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL

from ...misc.files import replacing
from ...misc.resources import available_memory, cache_folder
from ...misc.text import counted
from ..annotation_arrays import Annotations
from .opening import max_pixels
from .pixel_range import PixelRange

logger = logging.getLogger(__name__)

CacheKind = Literal["none", "ram", "disk"]

_MAX_FREE_FRACTION = 0.8  # of free memory or disk space
_GIB = 2**30
_FORMAT = f"2, Pillow {PIL.__version__}"  # other versions may decode to other pixels
_HEADER = struct.Struct("<qqII")  # modification time (ns), file size, height, width

Decode = Callable[[], np.ndarray]


class PixelCache:
    """Decodes each time; subclasses store the pixels. Errors of `decode` are raised."""

    kind: CacheKind = "none"

    def get(self, index: int, path: Path, decode: Decode) -> np.ndarray:
        """Return the pixels of an image.

        Args:
            index: of the image in its data set.
            path: of its file.
            decode: reads the file; called if the pixels are not in the cache.

        Returns:
            [H, W, 3] uint8, a copy that the caller may change.
        """
        return decode()


class RamCache(PixelCache):
    """Stores pixels in memory that forked workers share.

    Address space is reserved for the images, by their size in the annotations, as long as memory
    suffices; memory is used when an image is first read. Changes of files during a run are ignored.
    """

    kind: CacheKind = "ram"
    _alive: "weakref.WeakSet[RamCache]" = weakref.WeakSet()

    def __init__(self, annotations: Annotations, img_folder: Path) -> None:
        self._sizes_wh = annotations.sizes_wh
        needed = _bytes_needed(annotations)
        free = self._free_memory()
        budget = int(needed.sum()) if free is None else int(free * _MAX_FREE_FRACTION)
        is_cached = (needed > 0) & (np.cumsum(needed) <= budget)
        self._ends = np.cumsum(np.where(is_cached, needed, 0))
        self._bytes = int(self._ends[-1])
        self._is_cached = is_cached
        # Anonymous memory is not limited by the size of /dev/shm, and pages are allocated by the
        # first write. A byte per image flags that its pixels are complete.
        self._memory: mmap.mmap | None = None
        try:
            self._memory = mmap.mmap(-1, self._bytes + len(needed))
        except OSError as error:  # a limit of the process (ulimit -v), or overcommit is disabled
            logger.warning(
                "cache: ram: cannot reserve %.2f GiB (%s); images are not cached. Raise the limit, "
                "or set cache: disk",
                self._bytes / _GIB,
                error,
            )
            return
        self._alive.add(self)
        _log_size("ram", img_folder, is_cached, needed, free, place="memory")

    def get(self, index: int, path: Path, decode: Decode) -> np.ndarray:
        """See `PixelCache`."""
        if self._memory is None or not self._is_cached[index]:
            return decode()
        flag = self._bytes + index
        width, height = (int(side) for side in self._sizes_wh[index])
        size = width * height * 3
        place = int(self._ends[index]) - size
        if self._memory[flag]:
            cached = np.frombuffer(self._memory, np.uint8, size, place)
            return cached.reshape(height, width, 3).copy()
        pixels = decode()
        if pixels.shape == (height, width, 3):
            self._memory[place : place + size] = pixels.tobytes()
            self._memory[flag] = 1
        return pixels

    def _free_memory(self) -> int | None:
        """Return free bytes per rank, minus the reservations of other caches."""
        available = available_memory()
        if available is None:
            return None
        ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return max(0, available // ranks - sum(cache.unfilled_bytes() for cache in self._alive))

    def unfilled_bytes(self) -> int:
        """Return the number of bytes that are reserved but not used yet."""
        if self._memory is None:
            return 0
        flags = np.frombuffer(self._memory, np.uint8, len(self._is_cached), self._bytes) > 0
        sizes = np.diff(self._ends, prepend=0)
        return int(sizes[self._is_cached & ~flags].sum())

    def __getstate__(self) -> dict[str, Any]:
        logger.warning(
            "cache: ram is shared with forked workers only; spawned workers read files. Set "
            "multiprocessing_context: fork, or cache: disk"
        )
        return {**self.__dict__, "_memory": None}


class DiskCache(PixelCache):
    """Stores pixels in files in the user's cache directory, shared by all ranks and runs.

    A cache file is valid for one modification time and size of the image file, one version of the
    decoder and one pixel range. Files are never removed, because images of other data sets may only
    be on a disk that is not mounted. Users may remove the folder, by default in their cache
    directory.
    """

    kind: CacheKind = "disk"

    def __init__(
        self,
        annotations: Annotations,
        img_folder: Path,
        folder: Path | None = None,
        pixel_range: PixelRange | None = None,
    ) -> None:
        self._pixel_range = pixel_range
        self._folder = folder or cache_folder("images")
        self._sizes_wh = annotations.sizes_wh
        self._is_cached = np.zeros(len(annotations), dtype=bool)
        needed = _bytes_needed(annotations)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            logger.warning("cache: disk: %s (%s); images are not cached", self._folder, error)
            return
        new = needed
        if needed.sum() > free * _MAX_FREE_FRACTION:  # files of earlier runs need no more space
            names = (img_folder / annotations[i].file_name for i in range(len(annotations)))
            exists = [self._file(i, path).is_file() for i, path in enumerate(names)]
            new = np.where(exists, 0, needed)
        self._is_cached = np.cumsum(new) <= free * _MAX_FREE_FRACTION
        _log_size("disk", img_folder, self._is_cached, needed, free, place=str(self._folder))

    def get(self, index: int, path: Path, decode: Decode) -> np.ndarray:
        """See `PixelCache`."""
        if not self._is_cached[index]:
            return decode()
        try:
            status = path.stat()
        except (OSError, ValueError):
            return decode()  # which raises an error that names the file
        key = (status.st_mtime_ns, status.st_size)
        file = self._file(index, path)
        pixels = _read(file, key)
        if pixels is None:
            pixels = decode()
            self._write(file, key, pixels)
        return pixels

    def _file(self, index: int, path: Path) -> Path:
        """Return the cache file of an image; a changed image replaces it."""
        settings = (_FORMAT, *(int(side) for side in self._sizes_wh[index]), self._pixel_range)
        digest = hashlib.sha256(os.fsencode(path.absolute()) + repr(settings).encode())
        return self._folder / f"{digest.hexdigest()[:32]}.pixels"

    def _write(self, file: Path, key: tuple[int, int], pixels: np.ndarray) -> None:
        try:
            with replacing(file) as partial, partial.open("wb") as out:
                out.write(_HEADER.pack(*key, *pixels.shape[:2]))
                out.write(np.ascontiguousarray(pixels).data)
        except OSError as error:
            self._is_cached[:] = False  # stop trying to write to a full disk
            logger.warning("cache: disk: %s (%s); no more images are cached", file, error)


def _read(file: Path, key: tuple[int, int]) -> np.ndarray | None:
    """Return the pixels if the file is complete and has this key."""
    try:
        content = np.fromfile(file, np.uint8)
    except OSError:
        return None
    if len(content) < _HEADER.size:
        return None
    *found, height, width = _HEADER.unpack(content[: _HEADER.size].tobytes())
    if tuple(found) != key or len(content) != _HEADER.size + height * width * 3:
        return None
    return content[_HEADER.size :].reshape(height, width, 3)


def _bytes_needed(annotations: Annotations) -> np.ndarray:
    """Return the bytes of each image's pixels, [images]; 0 without a plausible size.

    A wrong size in the annotations could otherwise reserve all memory.
    """
    pixels = annotations.sizes_wh.astype(np.int64).prod(axis=1)
    return np.where(pixels <= max_pixels(), pixels * 3, 0)


def _log_size(
    kind: CacheKind,
    img_folder: Path,
    is_cached: np.ndarray,
    needed: np.ndarray,
    free: int | None,
    *,
    place: str,
) -> None:
    """Log the size of the cache and the number of images that do not fit."""
    size = int(needed[is_cached].sum()) / _GIB
    available = "" if free is None else f", {free / _GIB:.2f} GiB are free in {place}"
    if is_cached.all():
        logger.info("cache=%s %s: %.2f GiB when full%s", kind, img_folder, size, available)
        return
    no_size = int((needed == 0).sum()) if kind == "ram" else 0
    reason = f" ({no_size} have no valid size in the annotations)" if no_size else ""
    logger.warning(
        "cache: %s: %s needs %.2f GiB%s: %d of %s are cached (%.2f GiB), the others are "
        "decoded every time%s%s",
        kind,
        img_folder,
        int(needed.sum()) / _GIB,
        available,
        int(is_cached.sum()),
        counted(len(needed), "image"),
        size,
        reason,
        f"; to remove the caches of all data sets: rm -r {shlex.quote(place)}" * (kind == "disk"),
    )


def make_cache(
    kind: CacheKind,
    annotations: Annotations,
    img_folder: Path,
    pixel_range: PixelRange | None = None,
) -> PixelCache:
    """Build a cache for the images of a data set."""
    if kind == "ram":
        return RamCache(annotations, img_folder)
    if kind == "disk":
        return DiskCache(annotations, img_folder, pixel_range=pixel_range)
    return PixelCache()
