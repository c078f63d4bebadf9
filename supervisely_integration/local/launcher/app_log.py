"""What people need to know of an app's log, which the SDK fills with JSON, bars and banners."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.misc.errors import RTDETRError

_EVENT = re.compile(r'\{"message": .*\}$')  # behind a bar of tqdm on the same line, sometimes
_PROGRESS = "EventType.PROGRESS"
_RAISED = re.compile(r"^(?:\w+\.)*([A-Z]\w*): (.+)$")  # the last line of a traceback
_UNNAMED = "AppError"
_PORT_TAKEN = re.compile(r"error while attempting to bind on address \('[^']*', (\d+)\)")
_COMPLETE = "The experiment is complete, but "


class AppError(RTDETRError):
    """An app that could not do what it was asked for.

    Args:
        message: one sentence.
        log: of the app.
        name: of the app's own error.
    """

    def __init__(self, message: str, log: Path, name: str = _UNNAMED) -> None:
        super().__init__(message)
        self.log = log
        self.name = name
        self.go_on: str | None = None  # command that goes on from here


@dataclass(frozen=True)
class Bar:
    """How far the app is with something: a bar of the SDK."""

    what: str
    done: int
    total: int | None  # None: nobody knows, or it is done and the next has not begun
    in_bytes: bool


class GrowingFile:
    """The whole lines of a file that somebody writes, or will write.

    Args:
        path: of the file.
        offset: where to begin, in bytes.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self._offset = offset

    def new_lines(self) -> list[str]:
        """Those that were added since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                whole, end, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self._offset += len(whole) + len(end)
        return whole.decode(errors="replace").splitlines()


class AppLog:
    """Reads a log that grows.

    Args:
        path: of the log.
        offset: where to begin, in bytes: a task that was launched before goes on in the same file.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self._begin = offset
        self._file = GrowingFile(path, offset)

    def new_bars(self) -> Iterator[Bar]:
        """What the app has done since the last call."""
        for event in _events(self._file.new_lines()):
            if event.get("event_type") == _PROGRESS:
                done, total = int(event["current"]), int(event["total"])
                is_open = total > 1 and done < total
                in_bytes = "total_label" in event
                what = str(event["subtask"]).rstrip(". ")
                yield Bar(what, done, total if is_open else None, in_bytes)

    def failure(self, code: int) -> AppError:
        """Why the app ended.

        Args:
            code: exit code of its process.
        """
        lines = self._all_lines()
        taken = next(filter(None, map(_PORT_TAKEN.search, lines)), None)
        if taken:  # it goes on until its interpreter is gone, with errors that follow from that
            return AppError(
                f"port {taken[1]} was taken by another program before the app could listen there; "
                "end that one, or choose another --port",
                self.path,
            )
        if code < 0:
            message = f"the app was ended by signal {-code}; if the machine ran out of memory, "
            return AppError(f"{message}choose a smaller batch_size or size", self.path)
        errors = [e["message"] for e in _events(lines) if e.get("level") in ("error", "fatal")]
        if errors:
            message = str(errors[-1])
            stacks = [str(line) for e in _events(lines) for line in e.get("stack", ())]
            return AppError(_one_line(message), self.path, _name_of(message, lines + stacks))
        said = [line for line in lines if line.strip() and not _EVENT.search(line)]
        raised = _RAISED.match(said[-1]) if said else None
        if raised:
            return AppError(raised[2], self.path, raised[1])
        return AppError(f"the app ended with code {code} and did not say why", self.path)

    def shortcomings(self) -> list[str]:
        """What a complete experiment lacks, in the app's words."""
        said = [str(e["message"]) for e in _events(self._all_lines())]
        return list(dict.fromkeys(_one_line(m) for m in said if m.startswith(_COMPLETE)))

    def _all_lines(self) -> list[str]:
        with self.path.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode(errors="replace").splitlines()


def _events(lines: list[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        found = _EVENT.search(line)
        if found:
            try:
                yield json.loads(found[0])
            except ValueError:  # two of them ran into each other
                continue


def _name_of(message: str, lines: list[str]) -> str:
    """The class of an error whose message is known: tracebacks end with both."""
    end = f": {message.splitlines()[0]}" if message else ""
    for line in reversed(lines):
        raised = _RAISED.match(line)
        if raised and end and line.endswith(end):
            return raised[1]
    return _UNNAMED


def _one_line(message: str) -> str:
    return " ".join(message.split())
