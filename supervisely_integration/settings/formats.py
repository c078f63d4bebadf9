"""Formats in which the settings of a training are given: those of the app, and of `TrainApi`.

`TrainApi` (supervisely/api/nn/train_api.py) has two more: the arguments of `TrainApi.run`, and the
parameters that it starts the app with, which contain the settings of the app.
"""

import re
from collections.abc import Mapping
from typing import Any

from rtdetrv2_pytorch.src.core.build import suggest
from rtdetrv2_pytorch.src.misc.errors import ConfigError

Json = dict[str, Any]

_GUI_STATE = "guiState"
# Arguments of `TrainApi.run` with their defaults; `agent_id` has no meaning for settings.
_RUN_DEFAULTS: Json = {
    "project_id": None,
    "model": None,
    "hyperparameters": None,
    "experiment_name": None,
    "classes": None,
    "train_val_split": None,
    "convert_class_shapes": True,
    "enable_benchmark": True,
    "enable_speedtest": False,
    "cache_project": True,
    "export_onnx": False,
    "export_tensorrt": False,
    "autostart": True,
    "agent_id": None,
}
_CUSTOM = re.compile(r"/?experiments/[^/]+/(\d+)_[^/]+/(?:checkpoints/)?([^/]+)")
_APP_KEYS = ("input", "model", "classes", "tags", "train_val_split", "hyperparameters", "options")
_MODEL_KEYS = "{'source': 'Pretrained models', 'model_name': 'RT-DETRv2-S'}"


def app_settings(given: Mapping[str, Any], where: object) -> tuple[Json, int | None]:
    """Return settings in the app's format, and the project that they name.

    Args:
        given: settings of the app, or the parameters or arguments of `TrainApi`.
        where: they come from, for messages.

    Raises:
        ConfigError: if the format is unknown.
    """
    content: Mapping[str, Any] = given
    project = None
    if isinstance(content.get("state"), Mapping):
        content = content["state"]
    if "slyProjectId" in content:
        project = _project_id(content["slyProjectId"], where)
    if "trainTaskId" in content:
        raise ConfigError(
            f"{where}: contains the parameters of TrainApi.finetune or rerun_from_task_id, which "
            f"only name task {content['trainTaskId']}; use the app_state.json of that experiment"
        )
    if _GUI_STATE in content:
        content = content[_GUI_STATE]
        if not isinstance(content, Mapping):
            raise ConfigError(f"{where}: {_GUI_STATE} = {content!r}: not an object; give settings")
    source = content.get("input")
    if project is None and isinstance(source, Mapping):
        project = _project_id(source.get("project_id"), where)
    if isinstance(content.get("model"), str):
        project = _project_id(content.get("project_id"), where)
        content = _from_run_arguments(content, where)
    if not isinstance(content.get("model"), Mapping):
        raise ConfigError(
            f"{where}: no settings of a training, which have the keys {', '.join(_APP_KEYS)}; "
            f"model = {content.get('model')!r}: give {_MODEL_KEYS}"
        )
    return dict(content), project


def _project_id(value: Any, where: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    raise ConfigError(f"{where}: project = {value!r}: give the ID of a project")


def _from_run_arguments(given: Mapping[str, Any], where: object) -> Json:
    """Return the settings that `TrainApi.run` makes of its arguments."""
    for key in given:
        if key not in _RUN_DEFAULTS:
            raise ConfigError(
                f"{where}: unknown argument {key!r} of TrainApi.run{suggest(key, _RUN_DEFAULTS)}"
            )
    values = {**_RUN_DEFAULTS, **given}
    has_speed_test = bool(values["enable_speedtest"])
    settings: Json = {
        "model": _model(values["model"]),
        "train_val_split": values["train_val_split"]
        or {"method": "random", "split": "train", "percent": 80},
        "options": {
            "convert_class_shapes": values["convert_class_shapes"],
            "cache_project": values["cache_project"],
            "model_benchmark": {
                "enable": bool(values["enable_benchmark"]) or has_speed_test,
                "speed_test": has_speed_test,
            },
            "export": {
                "enable": bool(values["export_onnx"] or values["export_tensorrt"]),
                "ONNXRuntime": bool(values["export_onnx"]),
                "TensorRT": bool(values["export_tensorrt"]),
            },
        },
        "start_training": values["autostart"],
    }
    optional = ("classes", "hyperparameters", "experiment_name")
    return settings | {key: values[key] for key in optional if values[key] is not None}


def _model(text: str) -> Json:
    """Return the settings of "RT-DETRv2/RT-DETRv2-M" or "/experiments/.../checkpoints/best.pth"."""
    custom = _CUSTOM.fullmatch(text)
    if custom:
        task, checkpoint = custom.groups()
        return {"source": "Custom models", "task_id": int(task), "checkpoint": checkpoint}
    return {"source": "Pretrained models", "model_name": text.rpartition("/")[2]}
