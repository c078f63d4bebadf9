"""Free memory of the machine or container, and the cache directory."""

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
from pathlib import Path

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
_MEMINFO = Path("/proc/meminfo")
# Control groups of a container, versions 2 and 1: folder, files of limit and usage, and the name of
# the inactive file cache in memory.stat.
_CGROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (
        Path("/sys/fs/cgroup/memory"),
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def available_memory() -> int | None:
    """Return the bytes available without swapping; None if unknown."""
    found = [_meminfo_available(), *(_left_in_group(*names) for names in _CGROUPS)]
    known = [size for size in found if size is not None]
    return max(0, min(known)) if known else None


def keep_freed_memory() -> None:
    """Keep up to 1 GiB of freed memory in this process for later allocations.

    Every training step on a CPU allocates the same tensors. Returning their memory to the system,
    which clears each page again, takes up to a tenth of a step. Does nothing without glibc.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, 2**30)


def release_freed_memory() -> None:
    """Return freed memory of this process to the system; does nothing without glibc."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def cache_folder(name: str) -> Path:
    """Return the user's cache directory for `name`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "rtdetrv2" / name


def _meminfo_available() -> int | None:
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _left_in_group(folder: Path, limit: str, used: str, inactive: str) -> int | None:
    """Return the bytes below the limit of a control group, with its inactive file cache.

    The group counts the file cache as used, but the system frees it on demand.
    """
    try:
        left = int((folder / limit).read_text()) - int((folder / used).read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):  # "max": no limit
        return None
    return left + sum(int(line.split()[1]) for line in lines if line.startswith(f"{inactive} "))


@contextlib.contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """Pause the garbage collector while many objects without reference cycles are created.

    It would examine them again and again, which took half of the time of COCO metrics.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
