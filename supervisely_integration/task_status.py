"""The state of a training task, for the process that launched the app.

The app's log is written for people. The launcher reads `task_status.json` in the app's data folder:

    {"state": "failed", "error": {"type": "ConfigError", "message": "..."}, "missing": {}}
"""

import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from rtdetrv2_pytorch.src.misc.errors import RTDETRError
from rtdetrv2_pytorch.src.misc.files import write_text
from rtdetrv2_pytorch.src.misc.text import first_line

logger = logging.getLogger(__name__)

STATUS_FILE = "task_status.json"
KEEP_OPEN = "KEEP_OPEN"  # environment variable of a launcher: a person closes the app
PAGE_ERROR = "page_error"  # field of log records about errors that the page shows
EVALUATION_REPORT = "evaluation_report"
_MAX_REASON = 300  # characters of an error of another library

State = Literal["waiting", "running", "finished", "stopped", "failed"]


@dataclass(frozen=True)
class TaskStatus:
    """The state of a task.

    Attributes:
        state: "waiting": for a person who presses Start. "finished": the experiment is uploaded.
            "stopped": ended on request with nothing to save. "running" after the end of the
            process: it was killed.
        error: why the task failed, in one sentence.
        error_type: name of the exception.
        missing: requested parts that the experiment lacks, with the reason: `EVALUATION_REPORT`,
            "ONNXRuntime", "TensorRT".
    """

    state: State = "waiting"
    error: str | None = None
    error_type: str | None = None
    missing: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> "TaskStatus | None":
        """Read the status from the app's data folder; None if there is none."""
        try:
            content = json.loads((folder / STATUS_FILE).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        error = content["error"] or {}
        return cls(content["state"], error.get("message"), error.get("type"), content["missing"])

    def save(self, folder: Path) -> None:
        """Write the status to the app's data folder, atomically."""
        error = {"type": self.error_type, "message": self.error} if self.error else None
        content = {"state": self.state, "error": error, "missing": self.missing}
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / STATUS_FILE, json.dumps(content))


class StatusReporter:
    """Keeps the status file of a running task up to date.

    Args:
        folder: the app's data folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._update(TaskStatus())

    def start(self) -> None:
        """Report that a training runs; the app may have finished another one before."""
        self._update(TaskStatus("running"))

    def wait(self) -> None:
        """Report that no training runs any more, unless its end is reported."""
        if self._status.state == "running":
            self._update(replace(self._status, state="waiting"))

    def finish(self) -> None:
        """Report that the experiment is uploaded."""
        self._update(replace(self._status, state="finished"))

    def stop(self) -> None:
        """Report that the task ended on request, with nothing to save."""
        self._update(replace(self._status, state="stopped"))

    def fail(self, error: Exception) -> None:
        """Report and log the error that ends the task; only the first one counts."""
        if self._status.state == "failed":
            return
        message = describe_error(error)
        logger.error("%s", message)
        failed = replace(
            self._status, state="failed", error=message, error_type=type(error).__name__
        )
        self._update(failed)

    def add_missing(self, part: str, reason: str) -> None:
        """Report and log a requested part that the experiment will lack."""
        name = "evaluation report" if part == EVALUATION_REPORT else f"{part} export"
        logger.error("The experiment has no %s: %s", name, reason)
        self._update(replace(self._status, missing={**self._status.missing, part: reason}))

    def _update(self, status: TaskStatus) -> None:
        self._status = status
        status.save(self._folder)


def describe_error(error: Exception, context: str = "") -> str:
    """Describe an error in one sentence.

    Args:
        error: the text of an `RTDETRError`; for other errors, the type and the first line.
        context: what failed; precedes errors of other libraries.
    """
    if isinstance(error, RTDETRError):
        return str(error)
    text = f"{type(error).__name__}: {first_line(error)[:_MAX_REASON]}"
    return f"{context} ({text})" if context else text
