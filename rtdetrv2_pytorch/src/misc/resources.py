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
# Of a container, in the second and in the first version of control groups: where its files are,
# those of its limit and its use, and what its statistics call files that are kept but not in use.
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
    """Bytes that can be taken without swapping; None where the system does not tell."""
    found = [_meminfo_available(), *(_left_in_group(*names) for names in _CGROUPS)]
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


def _left_in_group(folder: Path, limit: str, used: str, inactive: str) -> int | None:
    """Bytes until the limit; what only keeps files that were read is given up where it is needed.

    Groups count it as used: after a look at all images of a data set nothing would be left.
    """
    try:
        left = int((folder / limit).read_text()) - int((folder / used).read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):  # "max": no limit
        return None
    return left + sum(int(line.split()[1]) for line in lines if line.startswith(f"{inactive} "))
