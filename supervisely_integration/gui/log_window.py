"""The last lines of the app's log, for the page's log window."""

import itertools
import logging
import time
from collections import deque
from typing import Any

from supervisely.sly_logger import EventType

_MAX_LINES = 2000
_MAX_LENGTH = 4000  # characters of a line


class LogWindow(logging.Handler):
    """Keeps the last lines, numbered in order."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[dict[str, Any]] = deque(maxlen=_MAX_LINES)
        self._numbers = itertools.count(1)
        self._formatter = logging.Formatter()  # message and traceback

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line; progress events, which the SDK logs, are left out."""
        if getattr(record, "event_type", None) == EventType.PROGRESS:
            return
        try:
            text = self._formatter.format(record)
        except Exception:  # noqa: BLE001 (as in the handlers of logging)
            self.handleError(record)
            return
        line = {
            "number": next(self._numbers),
            "time": time.strftime("%H:%M:%S", time.localtime(record.created)),
            "level": record.levelname.lower(),
            "text": text[:_MAX_LENGTH],
        }
        self._lines.append(line)

    def lines(self, after: int = 0) -> list[dict[str, Any]]:
        """Return the lines after the given number."""
        return [line for line in list(self._lines) if line["number"] > after]
