"""The stages of the app's training, and stop requests from the button, the platform or a signal."""

import enum
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from rtdetrv2_pytorch.src.solver.stopping import STOP_SIGNALS, StopFlag

from ..task_status import KEEP_OPEN

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


def stays_open(gui_state: str | None) -> bool:
    """Return whether the page responds after a training, until a person closes the app.

    A task of the platform has to end with its training, as does a training without a person.

    Args:
        gui_state: settings that the app is launched with, as JSON.
    """
    starts_itself = json.loads(gui_state or "{}").get("start_training")
    is_task = os.environ.get("ENV", "development") != "development"  # as `sly.is_production`
    is_closed_by_a_person = not is_task or KEEP_OPEN in os.environ
    return is_closed_by_a_person and not starts_itself


class Lifecycle:
    """Tracks the stage of a training and applies stop requests to it.

    In preparation there is nothing to save, so the process exits. In training, the solver stops at
    its next batch and the app uploads the latest checkpoints. In finalization, the upload is
    completed.

    Args:
        leave: exits the process; called when a stop is requested in preparation.
        stays_open: whether the page stays open after a training. Then the Stop button does not end
            the process in preparation, but the training after the download. A signal ends both.
    """

    def __init__(self, leave: Callable[[], None], *, stays_open: bool = False) -> None:
        self.stays_open = stays_open
        self.stop_flag = StopFlag()
        self.stage = TrainingStage.IDLE
        self.start_s = time.monotonic()  # of the training, with its preparation
        self._leave = leave
        self._previous: dict[int, Any] = {}

    @property
    def is_stopping(self) -> bool:
        """Whether a stop was requested."""
        return self.stop_flag.is_set

    def begin(self) -> None:
        """Begin a training, without the stop request of an earlier one."""
        self.stop_flag = StopFlag()
        self.start_s = time.monotonic()
        self.stage = TrainingStage.PREPARATION

    def end(self) -> None:
        """End a training; `OVER` stays: the app has its result or has failed."""
        if self.stage is not TrainingStage.OVER:
            self.stage = TrainingStage.IDLE

    def stop(self, reason: str) -> None:
        """Request a stop; from any thread."""
        logger.warning("%s: stopping in %s", reason, self.stage.value)
        self.stop_flag.request(reason)
        if self.stage is TrainingStage.PREPARATION and not self.stays_open:
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
        self.stays_open = False
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
