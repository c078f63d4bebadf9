"""The stages of the app's training, and stop requests from the button, the platform or a signal."""

import enum
import logging
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from rtdetrv2_pytorch.src.solver.stopping import STOP_SIGNALS, StopFlag

logger = logging.getLogger(__name__)

_GRACE_S = 0.5  # for a preparation that is about to end


class TrainingStopped(Exception):  # noqa: N818 (not an error)
    """A training ended on request before there was anything to save."""


class TrainingStage(enum.Enum):
    """Stages of a training."""

    IDLE = "idle"
    PREPARATION = "preparation"
    TRAINING = "training"
    FINALIZATION = "finalization"
    OVER = "over"


class Lifecycle:
    """Tracks the stage of a training and applies stop requests to it.

    In preparation there is nothing to save, so the process exits. In training, the solver stops at
    its next batch and the app uploads the latest checkpoints. In finalization, the upload is
    completed.

    Args:
        leave: exits the process; called when a stop is requested in preparation.
    """

    def __init__(self, leave: Callable[[], None]) -> None:
        self.stop_flag = StopFlag()
        self.stage = TrainingStage.IDLE
        self._leave = leave
        self._previous: dict[int, Any] = {}

    @property
    def is_stopping(self) -> bool:
        """Whether a stop was requested."""
        return self.stop_flag.is_set

    def stop(self, reason: str) -> None:
        """Request a stop; from any thread."""
        logger.warning("%s: stopping in %s", reason, self.stage.value)
        self.stop_flag.request(reason)
        if self.stage is TrainingStage.PREPARATION:
            threading.Thread(target=self._leave_preparation, daemon=True).start()

    def check(self) -> None:
        """Raise `TrainingStopped` if a stop was requested."""
        if self.is_stopping:
            raise TrainingStopped(self.stop_flag.reason)

    def install_signal_handlers(self) -> None:
        """Treat SIGTERM, SIGINT and SIGHUP as stop requests; call in the main thread.

        Without a training, the handlers that were installed before, the web server's, receive
        them.
        """
        for number in STOP_SIGNALS:
            self._previous[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.stage not in (TrainingStage.IDLE, TrainingStage.OVER):
            self.stop(signal.Signals(number).name)
            return
        previous = self._previous[number]
        if callable(previous):
            previous(number, frame)
        elif previous == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def _leave_preparation(self) -> None:
        """Exit without waiting for the download, which cannot be interrupted."""
        time.sleep(_GRACE_S)
        if self.stage is TrainingStage.PREPARATION:
            self._leave()
