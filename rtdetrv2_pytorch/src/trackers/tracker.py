"""The interface of a tracker."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

PROJECT = "rtdetrv2"  # unless the environment variable of the tracker names another one

Axis = Literal["step", "epoch"]
FileKind = Literal["configuration", "report", "checkpoint"]


@dataclass(frozen=True)
class RunInfo:
    """What a tracker stores when a training starts."""

    name: str
    config: Mapping[str, Any]  # resolved
    resumed_id: str | None  # of the tracker's run, if the training is resumed


class Tracker(Protocol):
    """One run of a tracker. Any exception disables it; the training continues."""

    def start(self, info: RunInfo) -> str:
        """Start a run, or continue `resumed_id`; return the id of the run."""

    def log(self, values: Mapping[str, float], axis: Axis, number: int) -> None:
        """Store finite values of a step or epoch; both count from 1."""

    def log_image(self, tag: str, path: Path, epoch: int) -> None:
        """Store an image of an epoch, which counts from 1."""

    def log_file(self, path: Path, kind: FileKind) -> None:
        """Store a file of the run."""

    def finish(self, *, is_complete: bool) -> None:
        """End the run and wait until everything is stored."""
