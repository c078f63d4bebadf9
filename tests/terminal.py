"""Run commands in a pseudo-terminal of 100 columns and capture their output."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.app.preloaded import server

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
# Not allowed in the output: the SDK's JSON, tqdm bars, tracebacks, server logs, warnings.
_NOISE = re.compile(r'"message":|it/s\]|Traceback|uvicorn|\w+Warning:|^INFO|^20\d\d-', re.MULTILINE)


@dataclass(frozen=True)
class Shown:
    """Captured terminal output.

    Args:
        code: exit status.
        raw: output with escape sequences.
    """

    code: int
    raw: str

    @property
    def text(self) -> str:
        """Output without escape sequences, including all states of the progress line."""
        return _ESCAPE.sub("", self.raw).replace("\r\n", "\n").replace("\r", "\n")

    @property
    def lines(self) -> list[str]:
        """Non-empty lines."""
        return [line.rstrip() for line in self.text.splitlines() if line.strip()]

    @property
    def words(self) -> str:
        """The text without line breaks."""
        return " ".join(self.text.split())


def in_terminal(
    command: Sequence[str], cwd: Path, environment: Mapping[str, str] | None = None
) -> Shown:
    """Run a command in a new pseudo-terminal until it ends."""
    with _terminal() as (ours, its):
        options: dict[str, Any] = {"stdin": its, "stdout": its, "stderr": its}
        process = subprocess.Popen(
            command, cwd=cwd, env=_variables(environment), start_new_session=True, **options
        )
        raw = _read(ours, process.poll)
        return Shown(process.wait(), raw)


def module_in_terminal(
    module: str, arguments: Sequence[str], cwd: Path, environment: Mapping[str, str] | None = None
) -> Shown:
    """Run a module likewise, in a fork of a process that has imported torch and the SDK."""
    with _terminal() as (ours, its):
        process = server().start(
            module, arguments, cwd=cwd, env=_variables(environment), log=Path(os.ttyname(its))
        )
        raw = _read(ours, process.poll)
        return Shown(process.wait(), raw)


@contextmanager
def _terminal() -> Iterator[tuple[int, int]]:
    """Yield our end of a pseudo-terminal, and that of the process."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    try:
        yield ours, its
    finally:
        os.close(ours)
        os.close(its)


def _variables(environment: Mapping[str, str] | None) -> dict[str, str]:
    variables = {**os.environ, "TERM": "xterm-256color", **(environment or {})}
    for name in ("NO_COLOR", "COLUMNS"):
        variables.pop(name, None)
    return variables


def _read(terminal: int, poll: Callable[[], int | None]) -> str:
    """Read until the process has ended and nothing is left."""
    parts = []
    has_ended = False
    while True:
        if select.select([terminal], [], [], 0 if has_ended else 0.2)[0]:
            parts.append(os.read(terminal, 1 << 16))
        elif has_ended:
            return b"".join(parts).decode(errors="replace")
        else:
            has_ended = poll() is not None


def noise(text: str) -> list[str]:
    """Return lines that belong in a log file."""
    return [line for line in text.splitlines() if _NOISE.search(line)]
