"""Early end of a training on request or on a signal."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ..misc import distributed

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

logger = logging.getLogger(__name__)


class StopFlag:
    """A request to stop after the current batch; can be set from any thread or signal handler."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason = ""

    def request(self, reason: str) -> None:
        """Request a stop; the first reason is kept."""
        if not self._event.is_set():
            self.reason = reason
            self._event.set()

    @property
    def is_set(self) -> bool:
        """Whether a stop was requested on this rank."""
        return self._event.is_set()

    def agreed(self) -> bool:
        """Return whether a stop was requested on any rank.

        A collective operation: all ranks must call it at the same place, so that no rank stops
        while the others wait for it.
        """
        if not distributed.on_any_rank(self.is_set):
            return False
        self.request("requested on another rank")
        return True


class TimeLimit(StopFlag):
    """Ends an epoch when a stop is requested, or when it is late.

    Args:
        flag: the request.
        is_late: whether this rank wants to end the epoch.
    """

    def __init__(self, flag: StopFlag, is_late: Callable[[], bool]) -> None:
        super().__init__()
        self._flag = flag
        self._is_late = is_late

    def agreed(self) -> bool:
        """Return whether any rank has a stop request or is late; see `StopFlag.agreed`."""
        return distributed.on_any_rank(self._flag.is_set or self._is_late())


@contextmanager
def stop_on_signals(flag: StopFlag) -> Iterator[None]:
    """Convert SIGTERM, SIGINT and SIGHUP to stop requests; a second SIGINT interrupts immediately.

    SIGHUP means that the terminal is closed: further output is discarded, because writing to the
    terminal would fail. `nohup` keeps it ignored.

    Outside the main thread, where Python allows no signal handlers, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            for stream in terminals:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        name = signal.Signals(number).name
        if flag.is_set and number == signal.SIGINT:
            raise KeyboardInterrupt
        flag.request(name)
        logger.warning("%s: stopping after the current batch and saving", name)

    numbers = [s for s in STOP_SIGNALS if signal.getsignal(s) != signal.SIG_IGN]
    previous = {s: signal.signal(s, handle) for s in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
