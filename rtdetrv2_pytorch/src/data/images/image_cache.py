"""Decoded images, kept in memory or on disk, so that files are decoded once instead of every epoch.

What is kept are the pixels of the file, before any augmentation: a crop is cut from the image at
its full size and resized afterwards, so no smaller picture would give the same result.
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
from typing import Any, Literal, Protocol

import numpy as np
import PIL

from ...misc.resources import available_memory, cache_folder
from ..annotations import Annotations
from .decoding import MAX_PIXELS

logger = logging.getLogger(__name__)

CacheKind = Literal["none", "ram", "disk"]

_FREE_SHARE = 0.8  # of what is free; the rest is for the network, the workers and their batches
_GIB = 2**30
_MOST_PIXELS = 2 * MAX_PIXELS  # of an image that PIL reads
_FORMAT = f"1, Pillow {PIL.__version__}"  # another version may decode to other pixels
_HEADER = struct.Struct("<qqII")  # time in ns and size in bytes of the file, height, width

Decode = Callable[[], np.ndarray]


class ImageCache(Protocol):
    """Keeps what `decode` returns; what it raises passes through."""

    kind: CacheKind

    def get(self, index: int, path: Path, decode: Decode) -> np.ndarray:
        """The pixels of an image.

        Args:
            index: of the image in its data set.
            path: its file.
            decode: reads the file; called unless the pixels are known.

        Returns:
            [H, W, 3] uint8, the caller's own copy.
        """


class NoCache:
    """Keeps nothing."""

    kind: CacheKind = "none"

    def get(self, index: int, path: Path, decode: Decode) -> np.ndarray:
        """See `ImageCache`."""
        return decode()


class RamCache:
    """Keeps pixels in memory that this process shares with the workers it forks.

    A place is reserved for every image by its declared size, as far as there is memory; it is
    taken up when the image is read for the first time. Files that change during a run are not
    read again.

    Args:
        annotations: declare the images' sizes.
        img_folder: of their files, for messages.
    """

    kind: CacheKind = "ram"
    _alive: "weakref.WeakSet[RamCache]" = weakref.WeakSet()

    def __init__(self, annotations: Annotations, img_folder: Path) -> None:
        self._sizes_wh = annotations.sizes_wh
        needed = _bytes_needed(annotations)
        free = self._free_memory()
        budget = int(needed.sum()) if free is None else int(free * _FREE_SHARE)
        is_kept = (needed > 0) & (np.cumsum(needed) <= budget)
        self._ends = np.cumsum(np.where(is_kept, needed, 0))
        self._bytes = int(self._ends[-1])
        self._is_kept = is_kept
        # Anonymous memory is neither a file nor bound by the size of /dev/shm; pages that nobody
        # wrote to do not exist. One byte an image says whether its pixels are complete.
        self._memory: mmap.mmap | None = None
        try:
            self._memory = mmap.mmap(-1, self._bytes + len(needed))
        except OSError as error:  # a limit of the process (ulimit -v), or no overcommitment
            logger.warning(
                "cache: ram: %.2f GiB cannot be reserved (%s); nothing is kept. Raise the limit, "
                "or set cache: disk",
                self._bytes / _GIB,
                error,
            )
            return
        self._alive.add(self)
        _say("ram", img_folder, is_kept, needed, free, place="memory")

    def get(self, index: int, path: Path, decode: Decode) -> np.ndarray:
        """See `ImageCache`."""
        if self._memory is None or not self._is_kept[index]:
            return decode()
        flag = self._bytes + index
        width, height = (int(side) for side in self._sizes_wh[index])
        size = width * height * 3
        place = int(self._ends[index]) - size
        if self._memory[flag]:
            kept = np.frombuffer(self._memory, np.uint8, size, place)
            return kept.reshape(height, width, 3).copy()
        pixels = decode()
        if pixels.shape == (height, width, 3):
            self._memory[place : place + size] = pixels.tobytes()
            self._memory[flag] = 1
        return pixels

    def _free_memory(self) -> int | None:
        """Bytes for this cache: ranks of a machine share it, others may not be full yet."""
        available = available_memory()
        if available is None:
            return None
        ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return max(0, available // ranks - sum(cache.unfilled_bytes() for cache in self._alive))

    def unfilled_bytes(self) -> int:
        """Bytes that are reserved, but not yet taken from the system."""
        if self._memory is None:
            return 0
        flags = np.frombuffer(self._memory, np.uint8, len(self._is_kept), self._bytes) > 0
        sizes = np.diff(self._ends, prepend=0)
        return int(sizes[self._is_kept & ~flags].sum())

    def __getstate__(self) -> dict[str, Any]:
        logger.warning(
            "cache: ram is shared with forked workers only; those that are spawned read files. Set "
            "multiprocessing_context: fork, or cache: disk"
        )
        return {**self.__dict__, "_memory": None}


class DiskCache:
    """Keeps pixels in files beside other caches of this user; they survive the run.

    A file is valid as long as time and size of the image's file stay, for one version of the
    decoder. All ranks and runs share them. Nothing is removed: whether the images of another data
    set are gone, or only on a disk that is not mounted now, cannot be told. People may remove the
    folder.

    Args:
        annotations: declare the images' sizes.
        img_folder: of their files.
        folder: for the files; default: below the user's caches.
    """

    kind: CacheKind = "disk"

    def __init__(
        self, annotations: Annotations, img_folder: Path, folder: Path | None = None
    ) -> None:
        self._folder = folder or cache_folder("images")
        self._sizes_wh = annotations.sizes_wh
        self._is_kept = np.zeros(len(annotations), dtype=bool)
        needed = _bytes_needed(annotations)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            logger.warning("cache: disk: %s (%s); nothing is kept", self._folder, error)
            return
        new = needed
        if needed.sum() > free * _FREE_SHARE:  # what an earlier run left takes no more room
            names = (img_folder / annotations[i].file_name for i in range(len(annotations)))
            is_there = [self._file(i, path).is_file() for i, path in enumerate(names)]
            new = np.where(is_there, 0, needed)
        self._is_kept = np.cumsum(new) <= free * _FREE_SHARE
        _say("disk", img_folder, self._is_kept, needed, free, place=str(self._folder))

    def get(self, index: int, path: Path, decode: Decode) -> np.ndarray:
        """See `ImageCache`."""
        if not self._is_kept[index]:
            return decode()
        try:
            status = path.stat()
        except (OSError, ValueError):
            return decode()  # which says what is wrong
        key = (status.st_mtime_ns, status.st_size)
        file = self._file(index, path)
        pixels = _read(file, key)
        if pixels is None:
            pixels = decode()
            self._write(file, key, pixels)
        return pixels

    def _file(self, index: int, path: Path) -> Path:
        """One name per image and setting: a changed image takes the place of the old one."""
        settings = (_FORMAT, *(int(side) for side in self._sizes_wh[index]))
        digest = hashlib.sha256(os.fsencode(path.absolute()) + repr(settings).encode())
        return self._folder / f"{digest.hexdigest()[:32]}.pixels"

    def _write(self, file: Path, key: tuple[int, int], pixels: np.ndarray) -> None:
        partial = file.with_suffix(f".{os.getpid()}.partial")
        try:
            with partial.open("wb") as out:
                out.write(_HEADER.pack(*key, *pixels.shape[:2]))
                out.write(np.ascontiguousarray(pixels).data)
            partial.replace(file)
        except OSError as error:
            partial.unlink(missing_ok=True)
            self._is_kept[:] = False  # of this process: a full disk would be asked again and again
            logger.warning("cache: disk: %s (%s); no more images are kept", file, error)


def _read(file: Path, key: tuple[int, int]) -> np.ndarray | None:
    """The pixels, if the file is complete and of this key."""
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
    """[images] bytes of each one's pixels; 0 where no size is declared that a readable image has.

    One wrong size would else take the room of all images.
    """
    pixels = annotations.sizes_wh.astype(np.int64).prod(axis=1)
    return np.where(pixels <= _MOST_PIXELS, pixels * 3, 0)


def _say(
    kind: CacheKind,
    img_folder: Path,
    is_kept: np.ndarray,
    needed: np.ndarray,
    free: int | None,
    *,
    place: str,
) -> None:
    """Tell what the cache will need, and what it leaves out."""
    kept = int(needed[is_kept].sum())
    room = "" if free is None else f", {free / _GIB:.2f} GiB are free in {place}"
    if is_kept.all():
        logger.info("cache=%s %s: %.2f GiB when full%s", kind, img_folder, kept / _GIB, room)
        return
    undeclared = int((needed == 0).sum()) if kind == "ram" else 0
    sizes = f" ({undeclared} of them declare no possible size)" if undeclared else ""
    logger.warning(
        "cache: %s: %s would need %.2f GiB%s: %d of %d images are kept (%.2f GiB), the others are "
        "read from their files every time%s%s",
        kind,
        img_folder,
        int(needed.sum()) / _GIB,
        room,
        int(is_kept.sum()),
        len(needed),
        kept / _GIB,
        sizes,
        f"; what other data sets left goes with: rm -r {shlex.quote(place)}" * (kind == "disk"),
    )


def make_cache(kind: CacheKind, annotations: Annotations, img_folder: Path) -> ImageCache:
    """Build a cache.

    Args:
        kind: where to keep pixels.
        annotations: declare the images' sizes.
        img_folder: of their files.
    """
    if kind == "ram":
        return RamCache(annotations, img_folder)
    if kind == "disk":
        return DiskCache(annotations, img_folder)
    return NoCache()
