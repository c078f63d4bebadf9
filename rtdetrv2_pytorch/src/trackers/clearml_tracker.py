"""ClearML. `CLEARML_PROJECT`, `CLEARML_OFFLINE_MODE` and `clearml.conf` are respected."""

import os
from collections.abc import Mapping
from pathlib import Path

from .tracker import PROJECT, Axis, FileKind, RunInfo


class ClearmlTracker:
    """A task of ClearML.

    Args:
        folder: output folder of the training; unused.
    """

    def __init__(self, folder: Path) -> None:
        del folder

    def start(self, info: RunInfo) -> str:
        """See `Tracker`."""
        from clearml import Task

        self._task = Task.init(
            project_name=os.environ.get("CLEARML_PROJECT", PROJECT),
            task_name=info.name,
            reuse_last_task_id=False,
            continue_last_task=info.resumed_id or False,
            # It would record the matplotlib figures, checkpoints and TensorBoard files again.
            auto_connect_frameworks=False,
            auto_connect_arg_parser=False,
            auto_connect_streams=False,
        )
        if info.resumed_id is not None:
            self._task.set_initial_iteration(0)  # steps are those of the whole training
        self._task.connect_configuration(dict(info.config), name="configuration")
        return str(self._task.id)

    def log(self, values: Mapping[str, float], axis: Axis, number: int) -> None:
        """See `Tracker`. The part of a name before the slash is a plot, the rest a curve."""
        del axis
        for name, value in values.items():
            title, _, series = name.partition("/")
            self._task.get_logger().report_scalar(title, series, value=value, iteration=number)

    def log_image(self, tag: str, path: Path, epoch: int) -> None:
        """See `Tracker`."""
        title, _, series = tag.partition("/")
        self._task.get_logger().report_image(title, series, iteration=epoch, local_path=str(path))

    def log_file(self, path: Path, kind: FileKind) -> None:
        """See `Tracker`."""
        if kind == "report":
            self._task.get_logger().report_media(
                "report", path.name, iteration=0, local_path=str(path)
            )
        self._task.upload_artifact(path.name, artifact_object=str(path))

    def finish(self, *, is_complete: bool) -> None:
        """See `Tracker`."""
        self._task.flush(wait_for_uploads=True)
        if not is_complete:
            self._task.mark_failed(status_reason="the training failed")
        self._task.close()
