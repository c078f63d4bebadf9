"""Where the time of an epoch goes, measured without making the host wait for the device."""

import time
from collections import deque
from collections.abc import Mapping
from typing import Literal, get_args

import torch

Section = Literal[
    "data",  # waiting for a batch
    "transfer",  # to the device, and there to floats of the batch's size
    "forward",
    "matching",  # and the losses
    "backward",
    "optimizer",  # clipping, step, moving average, warm-up
    "evaluation",  # of the validation split
    "other",  # log lines, progress
]
SECTIONS: tuple[Section, ...] = get_args(Section)


class Stopwatch:
    """Adds up laps by section.

    On a GPU a lap is the time between two events of its stream: what the host does meanwhile
    counts only where the device waits for it. Events are read once they are over, so that no lap
    waits for anything.

    Args:
        device: whose time is measured.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.start()

    def start(self) -> None:
        """Forget all laps; the first one begins now."""
        self._seconds: dict[Section, float] = dict.fromkeys(SECTIONS, 0.0)
        self._pending: deque[tuple[Section, torch.cuda.Event, torch.cuda.Event]] = deque()
        self._last = self._mark()

    def lap(self, section: Section) -> None:
        """What was done since the last lap belongs to this section."""
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
        """Seconds per section since the start; waits for the device."""
        if self._pending:
            self._pending[-1][2].synchronize()
        while self._pending:
            self._read()
        return dict(self._seconds)

    def _mark(self) -> "float | torch.cuda.Event":
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))  # which need not be the present GPU's
        return event

    def _read(self) -> None:
        section, begin, end = self._pending.popleft()
        self._seconds[section] += begin.elapsed_time(end) / 1000


def shares_of(seconds: Mapping[Section, float], eval_s: float) -> dict[str, float]:
    """Shares of an epoch: 0..1 per section, adding up to 1 (all 0 for an epoch of no length).

    Args:
        seconds: of training, per section.
        eval_s: of the evaluation that followed.
    """
    total = {**seconds, "evaluation": eval_s}
    whole = sum(total.values())
    return {name: value / whole if whole > 0 else 0.0 for name, value in total.items()}
