"""MLflow. `MLFLOW_TRACKING_URI` and `MLFLOW_EXPERIMENT_NAME` are respected."""

import itertools
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .tracker import PROJECT, Axis, FileKind, RunInfo

_FOLDERS: Mapping[FileKind, str | None] = {
    "configuration": None,
    "report": None,
    "checkpoint": "checkpoints",
}
_NOT_ALLOWED = re.compile(r"[^\w\-. /]")  # in names of metrics and parameters
_MAX_VALUE = 500  # characters of a parameter; the limit of older servers
_MAX_PARAMS = 100  # per request


class MlflowTracker:
    """A run of MLflow.

    Args:
        folder: output folder of the training; unused.
    """

    def __init__(self, folder: Path) -> None:
        from mlflow.tracking import MlflowClient

        del folder
        self._client = MlflowClient()
        self._id = ""

    def start(self, info: RunInfo) -> str:
        """See `Tracker`. Parameters of a run cannot change: a resumed run keeps its own."""
        if info.resumed_id is not None:
            self._id = info.resumed_id
            self._client.set_terminated(self._id, "RUNNING")
            return self._id
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        self._id = self._client.create_run(experiment, run_name=info.name).info.run_id
        params = (Param(name, value) for name, value in _flat(info.config))
        while batch := list(itertools.islice(params, _MAX_PARAMS)):
            self._client.log_batch(self._id, params=batch)
        return self._id

    def log(self, values: Mapping[str, float], axis: Axis, number: int) -> None:
        """See `Tracker`. MLflow has one step axis per metric."""
        from mlflow.entities import Metric

        del axis
        now_ms = int(time.time() * 1000)
        metrics = [Metric(_name(key), value, now_ms, number) for key, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def log_image(self, tag: str, path: Path, epoch: int) -> None:
        """See `Tracker`."""
        del tag, epoch  # the name of the file has both
        self._client.log_artifact(self._id, str(path), "pictures")

    def log_file(self, path: Path, kind: FileKind) -> None:
        """See `Tracker`."""
        self._client.log_artifact(self._id, str(path), _FOLDERS[kind])

    def finish(self, *, is_complete: bool) -> None:
        """See `Tracker`."""
        self._client.set_terminated(self._id, "FINISHED" if is_complete else "FAILED")


def _name(text: str) -> str:
    return _NOT_ALLOWED.sub("_", text)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values of nested mappings by dotted names."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield _name(f"{prefix}{key}"), str(value)[:_MAX_VALUE]
