"""The time that a training with a time budget leaves for what follows it."""

from collections.abc import Mapping
from typing import Any

from rtdetrv2_pytorch.src.timing.estimates import parse_duration

from ...task_status import EVALUATION_REPORT

# Assumed durations in seconds: their speed is not known before.
_UPLOAD_S = 60.0
_STEPS_S = {EVALUATION_REPORT: 180.0, "speed test": 180.0, "ONNXRuntime": 90.0, "TensorRT": 600.0}
_INT8_S = 300.0
_MAX_STEPS = 0.5  # of the budget


def optional_steps(page: Any) -> list[str]:
    """Return the evaluation and the exports that are selected on a page.

    Args:
        page: the selector of hyperparameters.
    """
    parts = {
        EVALUATION_REPORT: page.get_model_benchmark_checkbox_value(),
        "ONNXRuntime": page.get_export_onnx_checkbox_value(),
        "TensorRT": page.get_export_tensorrt_checkbox_value(),
    }
    return [name for name, is_selected in parts.items() if is_selected]


def reserve_seconds(page: Any, values: Mapping[str, Any], *, num_ranks: int = 1) -> float:
    """Return the seconds of the time budget that follow the training; 0 without a budget.

    Upload, evaluation and exports get at most half of it. Of the rest, the label radar gets the
    time of the training on one device. Its networks take less, except after trainings of one or
    two epochs, because each of them trains for one.

    Args:
        page: the selector of hyperparameters.
        values: hyperparameters.
        num_ranks: devices of the training.
    """
    if not values.get("time_budget"):
        return 0.0
    steps = optional_steps(page)
    if EVALUATION_REPORT in steps and page.get_speedtest_checkbox_value():
        steps.append("speed test")
    seconds = _UPLOAD_S + sum(_STEPS_S[step] for step in steps)
    if "ONNXRuntime" in steps and values.get("export_int8"):
        seconds += _INT8_S
    budget_s = parse_duration(values["time_budget"])
    seconds = min(seconds, _MAX_STEPS * budget_s)
    if values.get("label_radar"):
        seconds += (budget_s - seconds) * num_ranks / (num_ranks + 1)
    return seconds
