"""Ending early: on request, on a signal."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..misc import distributed

logger = logging.getLogger(__name__)


class StopFlag:
    """Asks a training to end at its next batch; can be set from any thread or signal."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason = ""

    def request(self, reason: str) -> None:
        """Ask to stop; the first reason counts."""
        if not self._event.is_set():
            self.reason = reason
            self._event.set()

    @property
    def is_set(self) -> bool:
        """Whether somebody asked."""
        return self._event.is_set()

    def agreed(self) -> bool:
        """Whether somebody asked on any rank; all ranks have to call it at the same place.

        A rank that stops alone leaves the others waiting for it.
        """
        if not distributed.on_any_rank(self.is_set):
            return False
        self.request("asked on another rank")
        return True


@contextmanager
def stop_on_signals(flag: StopFlag) -> Iterator[None]:
    """Turn SIGTERM and SIGINT into a request to stop; a second SIGINT interrupts at once.

    Outside the main thread, where Python allows no handlers, signals stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if flag.is_set and number == signal.SIGINT:
            raise KeyboardInterrupt
        flag.request(name)
        logger.warning("%s: stopping at the next batch and saving", name)

    previous = {s: signal.signal(s, handle) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
