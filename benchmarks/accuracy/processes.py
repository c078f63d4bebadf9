"""Child processes with a log file, that end with this process."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .results import ROOT

_POLL_S = 1.0
_GRACE_S = 120.0  # to finish a step and save
_LOG_LINES = 25


class RunError(Exception):
    """A run ended with an error."""


def log_tail(path: Path, lines: int = _LOG_LINES) -> list[str]:
    """Return the last lines of a log; none if it does not exist."""
    if not path.is_file():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]


def run_logged(
    command: Sequence[str],
    log: Path,
    *,
    on_poll: Callable[[], None],
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a command to its end.

    If this process is interrupted, the command gets SIGTERM and time to save its state.

    Args:
        command: to run in the project folder.
        log: its output is appended to this file.
        on_poll: called every second.
        environment: additional variables.

    Raises:
        RunError: if it fails, with the end of the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches it once, through this process
        )
        try:
            while process.poll() is None:
                on_poll()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_S)
        finally:
            _end(process)
    if process.returncode:
        end = "\n".join(log_tail(log))
        raise RunError(f"exit code {process.returncode}; end of {log}:\n{end}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop a process and its children if it is running."""
    if process.poll() is not None:
        return
    process.terminate()
    deadline = time.monotonic() + _GRACE_S
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
