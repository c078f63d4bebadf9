"""Measure peak memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _peak_bytes() -> int:
    line = next(x for x in _STATUS.read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@contextmanager
def at_most(num_bytes: int) -> Iterator[None]:
    """Fail if the peak memory of this process grows by more than `num_bytes`."""
    _RESET.write_text("5")  # reset the peak to the current usage
    before = _peak_bytes()
    yield
    grown = _peak_bytes() - before
    assert grown <= num_bytes, f"{grown:,} bytes more"
