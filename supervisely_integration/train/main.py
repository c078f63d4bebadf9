"""The training app: its page, and the function of the Start button."""

import dataclasses
import sys
from typing import Any

if __name__ == "__main__":
    print(  # noqa: T201 (the output of a command)
        "Usage: uvicorn main:train.app --app-dir supervisely_integration/train\n\n"
        "The platform starts the training app this way. To train without it:\n"
        "  python -m supervisely_integration.local train --help"
    )
    sys.exit(0 if {"-h", "--help"} & set(sys.argv) else 2)

from rtdetrv2_pytorch.src.core.error_places import naming_overrides
from rtdetrv2_pytorch.src.report.label_errors import RADAR_JSON
from supervisely_integration.paths import (
    HYPERPARAMETERS,
    INFERENCE_SETTINGS,
    MODELS,
    TRAIN_OPTIONS,
)
from supervisely_integration.serve.rtdetrv2 import RTDETRv2
from supervisely_integration.train.app import TrainApp
from supervisely_integration.train.hyperparameters import NAME_IN_ERRORS
from supervisely_integration.train.plan.reserve import reserve_seconds
from supervisely_integration.train.progress_bars import AppProgress
from supervisely_integration.train.workflow import LOGS, REPORTS, run_training

train = TrainApp(
    framework_name="RT-DETRv2",
    models=str(MODELS),
    hyperparameters=str(HYPERPARAMETERS),
    app_options=str(TRAIN_OPTIONS),
)
train.register_inference_class(RTDETRv2, str(INFERENCE_SETTINGS))


@train.start
def start_training() -> dict[str, Any]:
    """Train with the selected settings; returns the files that the app uploads."""
    next_steps = ("upload", *train.optional_steps)
    request = train.training_request()
    request = dataclasses.replace(
        request,
        start_s=train.lifecycle.start_s,
        reserve_s=reserve_seconds(
            train.gui.hyperparameters_selector,
            request.hyperparameters,
            num_ranks=len(request.devices),
        ),
    )
    train.show_tensorboard(request.run_dir / LOGS)
    progress = AppProgress(train.progress_bar_main, train.progress_bar_secondary, next_steps)
    try:
        with naming_overrides(NAME_IN_ERRORS):
            info = run_training(request, progress, train.lifecycle.stop_flag).as_dict()
        reports = [request.result_dir / name for name in REPORTS]
        train.add_output_files([str(path) for path in reports if path.is_file()])
        train.data.queue_label_errors(request.result_dir / RADAR_JSON)
        return info
    finally:
        progress.close()


@train.export_onnx
def export_onnx(experiment_info: dict[str, Any]) -> str:
    """Convert the best checkpoint for ONNX Runtime and OpenVINO."""
    return train.exporter.export(experiment_info, "ONNXRuntime")


@train.export_tensorrt
def export_tensorrt(experiment_info: dict[str, Any]) -> str:
    """Build a TensorRT engine from the best checkpoint."""
    return train.exporter.export(experiment_info, "TensorRT")


if train.auto_start:
    train.start_in_thread()
