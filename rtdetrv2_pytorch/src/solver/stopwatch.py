"""Time of an epoch by section, measured without device synchronization."""

import time
from collections import deque
from collections.abc import Mapping
from typing import Literal, get_args

import torch

Section = Literal[
    "data",  # waiting for a batch
    "transfer",  # copy to the device, conversion and resize there
    "forward",
    "matching",  # and losses
    "backward",
    "optimizer",  # clipping, step, EMA, warm-up
    "evaluation",
    "other",  # log lines, progress
]
SECTIONS: tuple[Section, ...] = get_args(Section)


class Stopwatch:
    """Adds up laps by section.

    On a GPU a lap is the time between two CUDA events of the current stream: host time counts
    only where the device waits for it. Only finished events are read.

    Args:
        device: the device to measure.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.start()

    def start(self) -> None:
        """Clear all laps and start the first one."""
        self._seconds: dict[Section, float] = dict.fromkeys(SECTIONS, 0.0)
        self._pending: deque[tuple[Section, torch.cuda.Event, torch.cuda.Event]] = deque()
        self._last = self._mark()

    def lap(self, section: Section) -> None:
        """Add the time since the last lap to a section."""
        now, last = self._mark(), self._last
        self._last = now
        if isinstance(now, float):
            assert isinstance(last, float)
            self._seconds[section] += now - last
            return
        assert not isinstance(last, float)
        self._pending.append((section, last, now))
        while self._pending and self._pending[0][2].query():
            self._read()

    def seconds(self) -> dict[Section, float]:
        """Return the seconds per section since the start; waits for the device."""
        if self._pending:
            self._pending[-1][2].synchronize()
        while self._pending:
            self._read()
        return dict(self._seconds)

    def _mark(self) -> "float | torch.cuda.Event":
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))  # not always the current GPU
        return event

    def _read(self) -> None:
        section, begin, end = self._pending.popleft()
        self._seconds[section] += begin.elapsed_time(end) / 1000


def shares_of(seconds: Mapping[Section, float], eval_s: float) -> dict[str, float]:
    """Return the share of each section, 0..1 with sum 1; all 0 for an empty epoch.

    Args:
        seconds: training time by section.
        eval_s: time of the evaluation.
    """
    total = {**seconds, "evaluation": eval_s}
    whole = sum(total.values())
    return {name: value / whole if whole > 0 else 0.0 for name, value in total.items()}
