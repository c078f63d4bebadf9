"""Read an app's log and task status: progress bars and the reason of a failure."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.misc.errors import RTDETRError

from ...task_status import PAGE_ERROR, TaskStatus

_EVENT = re.compile(r'\{"message": .*\}$')  # may follow a tqdm bar on the same line
_PROGRESS = "EventType.PROGRESS"
_RAISED = re.compile(r"^(?:\w+\.)*([A-Z]\w*(?:Error|Exception)): (.+)$")  # end of a traceback
_PORT_IN_USE = re.compile(r"error while attempting to bind on address \('[^']*', (\d+)\)")


class AppError(RTDETRError):
    """The failure of an app.

    Args:
        message: one sentence.
        log: log file of the app.
        name: class name of the app's own error.
    """

    def __init__(self, message: str, log: Path, name: str = "AppError") -> None:
        super().__init__(message)
        self.log = log
        self.name = name
        self.resume_command: str | None = None


@dataclass(frozen=True)
class Bar:
    """A progress bar of the SDK."""

    name: str
    done: int
    total: int | None  # None: unknown, or the bar is complete
    in_bytes: bool


class GrowingFile:
    """The complete lines of a file that is being written, or does not exist yet.

    Args:
        path: of the file.
        offset: first byte to read.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self._offset = offset

    def new_lines(self) -> list[str]:
        """Return the lines added since the last call."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._offset:  # another training began
                    self._offset = 0
                file.seek(self._offset)
                whole, end, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self._offset += len(whole) + len(end)
        return whole.decode(errors="replace").splitlines()


class AppLog:
    """The log file of an app, next to its task status.

    Args:
        path: of the log.
        offset: first byte of this launch; a resumed task appends to the same file.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self._start = offset
        self._file = GrowingFile(path, offset)
        self._errors = GrowingFile(path, offset)

    def new_bars(self) -> Iterator[Bar]:
        """Yield the progress since the last call."""
        for event in _events(self._file.new_lines()):
            if event.get("event_type") == _PROGRESS:
                done, total = int(event["current"]), int(event["total"])
                is_open = total > 1 and done < total
                name = str(event["subtask"]).rstrip(". ")
                yield Bar(name, done, total if is_open else None, "total_label" in event)

    def new_page_errors(self) -> Iterator[str]:
        """Yield the errors that the page has shown since the last call."""
        for event in _events(self._errors.new_lines()):
            if event.get(PAGE_ERROR):
                yield str(event["message"])

    def failure(self, code: int) -> AppError:
        """Return why the app failed.

        Args:
            code: exit code of its process.
        """
        with self.path.open("rb") as file:
            file.seek(self._start)
            lines = file.read().decode(errors="replace").splitlines()
        in_use = next(filter(None, map(_PORT_IN_USE.search, lines)), None)
        if in_use:
            return AppError(
                f"port {in_use[1]} was taken by another program before the app could listen on it; "
                "stop that program, or use another --port",
                self.path,
            )
        if code < 0:
            message = f"the app was killed by signal {-code}; if the machine ran out of memory, "
            return AppError(f"{message}use a smaller batch_size or image size", self.path)
        status = TaskStatus.load(self.path.parent)
        if status is not None and status.error:
            message = " ".join(status.error.split())
            return AppError(message, self.path, status.error_type or "AppError")
        raised = [match for match in map(_RAISED.match, lines) if match]
        if raised:
            return AppError(raised[-1][2], self.path, raised[-1][1])
        return AppError(f"the app ended with exit code {code} without an error message", self.path)

    def missing(self) -> dict[str, str]:
        """Return the requested parts that a complete experiment lacks, with the reasons."""
        status = TaskStatus.load(self.path.parent)
        return {} if status is None else status.missing


def _events(lines: list[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        found = _EVENT.search(line)
        if found:
            try:
                yield json.loads(found[0])
            except ValueError:  # two processes wrote into the same line
                continue
