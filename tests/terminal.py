"""Run commands in a pseudo-terminal of 100 columns and capture their output."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    variables = {**os.environ, "TERM": "xterm-256color", **(environment or {})}
    for name in ("NO_COLOR", "COLUMNS"):
        variables.pop(name, None)
    options: dict[str, Any] = {"stdin": its, "stdout": its, "stderr": its}
    with subprocess.Popen(
        command, cwd=cwd, env=variables, start_new_session=True, **options
    ) as process:
        os.close(its)
        parts = []
        try:
            while part := os.read(ours, 1 << 16):
                parts.append(part)
        except OSError:  # on Linux: the other end is closed
            pass
        finally:
            os.close(ours)
    return Shown(process.returncode, b"".join(parts).decode(errors="replace"))


def noise(text: str) -> list[str]:
    """Return lines that belong in a log file."""
    return [line for line in text.splitlines() if _NOISE.search(line)]
