"""A limit for the duration of a training, kept while it runs."""

import math
import statistics
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from .estimates import EpochTime

_MARGIN = 0.03  # of the budget: for the report, and for what differs from its estimate
_MAX_RESERVE = 0.95  # of the budget
_RECENT = 5  # epochs whose median duration is expected of the next ones


class TimeBudget:
    """Decides which epochs still fit.

    Epochs run in order as long as the tail of the schedule fits after the next one: the last
    epochs, with a low learning rate and without strong augmentation. Then the epochs before the
    tail are skipped, so that a training that becomes slower ends in time, and as planned.

    Args:
        seconds: from the start to the end of everything.
        start_s: reading of `clock` at the start.
        reserve_s: for what follows the training, such as exports and uploads; at most 95 %.
        eval_freq: epochs between two evaluations.
        clock: returns seconds.
    """

    def __init__(
        self,
        *,
        seconds: float,
        start_s: float,
        reserve_s: float = 0.0,
        eval_freq: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds = seconds
        self.clock = clock
        self.reserve_s = min(reserve_s, _MAX_RESERVE * seconds)
        self.eval_freq = eval_freq
        self.tail = 1  # epochs at the end that are not skipped
        self._start_s = start_s
        self._spent_s = 0.0  # before a resume
        self._train_s: deque[float] = deque(maxlen=_RECENT)
        self._eval_s: deque[float] = deque(maxlen=_RECENT)

    def elapsed_s(self) -> float:
        """Return the seconds since the start, with those before a resume."""
        return self._spent_s + self.clock() - self._start_s

    def left_s(self) -> float:
        """Return the seconds left for training and evaluation."""
        return (1 - _MARGIN) * self.seconds - self.reserve_s - self.elapsed_s()

    @property
    def expected(self) -> EpochTime:
        """The expected duration of the next epochs; no time before the first measurement."""
        train_s, eval_s = (
            statistics.median(each) if each else 0.0 for each in (self._train_s, self._eval_s)
        )
        return EpochTime(train_s, eval_s, self.eval_freq)

    def expect(self, epoch: EpochTime) -> None:
        """Set the expected durations until epochs are measured."""
        self._train_s = deque([epoch.train_s], maxlen=_RECENT)
        self._eval_s = deque([epoch.eval_s], maxlen=_RECENT)

    def add(self, *, train_s: float | None, eval_s: float | None) -> None:
        """Add the durations of an epoch; None: not measured."""
        for each, seconds in ((self._train_s, train_s), (self._eval_s, eval_s)):
            if seconds is not None:
                each.append(seconds)

    def next_epoch(self, epoch: int, epochs: int) -> int:
        """Return the epoch to train now: `epoch`, or a later one.

        Args:
            epoch: the next one in order.
            epochs: of the schedule.

        Returns:
            `epoch` if there is time for it and for the tail, else the first of the last epochs that
            fit; the last one if none fits.
        """
        expected = self.expected
        left_s = self.left_s() - expected.eval_s  # of best.pth, at the end

        def runs_s(first: int) -> float:
            return expected.seconds(first, epochs)

        tail_start = max(epoch + 1, epochs - self.tail)
        next_s = expected.train_s + expected.eval_s * ((epoch + 1) % self.eval_freq == 0)
        if epoch < epochs - self.tail and next_s + runs_s(tail_start) <= left_s:
            return epoch
        place = bisect_left(range(epoch, epochs), -left_s, key=lambda first: -runs_s(first))
        return min(epoch + place, epochs - 1)

    def is_late(self, *, is_last: bool, is_evaluated: bool) -> bool:
        """Return whether the current epoch has to end now, for a last epoch to fit after it.

        Args:
            is_last: the current epoch is the last one.
            is_evaluated: the current epoch ends with an evaluation.
        """
        expected = self.expected
        evaluations = 1 + is_evaluated + (not is_last)  # with that of best.pth
        need_s = evaluations * expected.eval_s + (0 if is_last else expected.train_s)
        return self.left_s() < need_s

    def fits_evaluation(self) -> bool:
        """Return whether there is time for an evaluation, in the margin, too."""
        return self.left_s() + _MARGIN * self.seconds >= self.expected.eval_s

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a resumed run."""
        expected = self.expected
        return {
            "elapsed_s": self.elapsed_s(),
            "train_s": expected.train_s,
            "eval_s": expected.eval_s,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the budget of a resumed run."""
        self._spent_s = float(state["elapsed_s"])
        train_s, eval_s = float(state["train_s"]), float(state["eval_s"])
        if train_s > 0 and math.isfinite(train_s + eval_s):
            self.expect(EpochTime(train_s, eval_s, self.eval_freq))
