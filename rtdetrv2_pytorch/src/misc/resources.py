"""What the machine, or the container that this runs in, has left; where caches are."""

import contextlib
import ctypes
import os
from pathlib import Path

# Of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
_MEMINFO = Path("/proc/meminfo")
# Limit and use of a container, of the second and of the first version of control groups.
_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def available_memory() -> int | None:
    """Bytes that can be taken without swapping; None where the system does not tell."""
    found = [_meminfo_available(), *(_left_in_group(*files) for files in _CGROUPS)]
    known = [size for size in found if size is not None]
    return max(0, min(known)) if known else None


def keep_freed_memory() -> None:
    """Let this process keep memory that it frees, up to 1 GiB, for what it asks for next.

    Every step of a training on a CPU asks for the same tensors. Handed back and asked for anew,
    each of their pages is cleared by the system again, which takes up to a tenth of a step.
    Without glibc nothing changes.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, 2**30)


def cache_folder(name: str) -> Path:
    """The folder for caches of this user.

    Args:
        name: of what is cached.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "rtdetrv2" / name


def _meminfo_available() -> int | None:
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _left_in_group(limit: Path, used: Path) -> int | None:
    try:
        return int(limit.read_text()) - int(used.read_text())
    except (OSError, ValueError):  # "max": no limit
        return None
