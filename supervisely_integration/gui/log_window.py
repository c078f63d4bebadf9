"""What the page's log window shows: the last lines of the app's log."""

import itertools
import logging
import time
from collections import deque
from typing import Any

from supervisely.sly_logger import EventType

_KEPT = 2000
_LONGEST = 4000  # characters of a line; what is longer was meant for a file


class LogWindow(logging.Handler):
    """Keeps the last lines, each with a number that grows."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._numbers = itertools.count(1)
        self._texts = logging.Formatter()  # the message and the traceback

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line; steps of a bar are no lines, though the SDK sends them as such."""
        if getattr(record, "event_type", None) == EventType.PROGRESS:
            return
        try:
            text = self._texts.format(record)
        except Exception:  # noqa: BLE001 (as in logging's own handlers: a bad line ends nothing)
            self.handleError(record)
            return
        line = {
            "number": next(self._numbers),
            "time": time.strftime("%H:%M:%S", time.localtime(record.created)),
            "level": record.levelname.lower(),
            "text": text[:_LONGEST],
        }
        self._lines.append(line)

    def lines(self, after: int = 0) -> list[dict[str, Any]]:
        """The lines that came later than the one of a number."""
        return [line for line in list(self._lines) if line["number"] > after]
