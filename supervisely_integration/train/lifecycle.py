"""One way to end early, however it was asked for: a button, the platform, or a signal.

In preparation there is nothing to lose, so the process ends at once. In training the engine ends
at its next batch, and what was trained is uploaded. An upload that has begun is finished.
"""

import enum
import logging
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from rtdetrv2_pytorch.src.solver.stopping import StopFlag

logger = logging.getLogger(__name__)

_GRACE_S = 0.5  # for a preparation that is about to end by itself


class Stopped(Exception):  # noqa: N818 (it is no error)
    """A training ended on request before there was anything to save."""


class Stage(enum.Enum):
    """Where a training is."""

    IDLE = "idle"
    PREPARATION = "preparation"
    TRAINING = "training"
    FINALIZATION = "finalization"
    OVER = "over"


class StopControl:
    """Turns every way of asking into one request.

    Args:
        leave: ends the process; called when a stop is asked for in preparation.
    """

    def __init__(self, leave: Callable[[], None]) -> None:
        self.flag = StopFlag()
        self.stage = Stage.IDLE
        self._leave = leave
        self._previous: dict[int, Any] = {}

    def request(self, reason: str) -> None:
        """Ask the training to end; from any thread."""
        logger.warning("%s: stopping in %s", reason, self.stage.value)
        self.flag.request(reason)
        if self.stage is Stage.PREPARATION:
            threading.Thread(target=self._leave_preparation, daemon=True).start()

    def take_signals(self) -> None:
        """Handle SIGTERM and SIGINT while a training runs; call in the main thread.

        At any other time they go to whoever handled them before, the web server.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.stage not in (Stage.IDLE, Stage.OVER):
            self.request(signal.Signals(number).name)
            return
        previous = self._previous[number]
        if callable(previous):
            previous(number, frame)

    def _leave_preparation(self) -> None:
        """A download cannot be interrupted from outside, and has nothing that must be kept."""
        time.sleep(_GRACE_S)
        if self.stage is Stage.PREPARATION:
            self._leave()
