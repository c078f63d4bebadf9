"""A progress line in the output of a notebook cell."""

import time
from typing import Any

_INTERVAL_S = 0.2  # between updates: each one is a message to the browser


class NotebookLine:
    """A line of text that is replaced in place."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._activity = ""
        self._shown_s = -_INTERVAL_S

    def show(self, activity: str, amount: str, details: str) -> None:
        """Replace the line, at most every 0.2 s for the same activity."""
        now = time.monotonic()
        if activity == self._activity and now < self._shown_s + _INTERVAL_S:
            return
        self._activity, self._shown_s = activity, now
        self._write("  ".join(part for part in (activity, amount, details) if part))

    def clear(self) -> None:
        """Remove the line."""
        if self._handle is not None:
            self._write("")
            self._handle = None

    def _write(self, text: str) -> None:
        from IPython.display import display  # a notebook has it

        content = {"text/plain": text}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(content, raw=True)
