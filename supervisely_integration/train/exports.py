"""Exports of the best checkpoint, which the SDK requests after a training."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from supervisely.nn.training.train_app import TrainApp

from rtdetrv2_pytorch.src.data.splits import Split, Splits
from rtdetrv2_pytorch.src.deploy.comparison_images import validation_images
from rtdetrv2_pytorch.src.deploy.parity import PARITY_FILE
from rtdetrv2_pytorch.src.deploy.tensorrt import card_file
from rtdetrv2_pytorch.src.misc.errors import RTDETRError

from ..checkpoint_export import export_checkpoint, export_quantized, int8_file
from ..task_status import StatusReporter, describe_error
from .hyperparameters import complete_hyperparameters, read_hyperparameters
from .project_splits import annotation_file

logger = logging.getLogger(__name__)

COCO_FOLDER = "coco"  # annotations of the splits, in the app's working folder
_SUFFIXES = {"ONNXRuntime": ".onnx", "TensorRT": ".engine"}


class StageBar:
    """Shows the stages of an export as one progress bar after another.

    Args:
        new_bar: makes a bar from a message and a total.
    """

    def __init__(self, new_bar: Callable[..., Any]) -> None:
        self._new_bar = new_bar
        self._stage, self._bar = "", None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Update the bar of a stage; see `parity.OnProgress`."""
        if stage != self._stage:
            self.close()
            logger.info("Export: %s", stage)
            self._stage = stage
            self._bar = self._new_bar(message=f"Export: {stage}", total=max(total, 1))
        assert self._bar is not None
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Close the last bar."""
        if self._bar is not None:
            self._bar.close()


class Exporter:
    """Exports checkpoints and compares the results on the validation split.

    Args:
        app: the training app.
        status: gets the reasons of failed exports, which `TrainApp._export_weights` only logs.
    """

    def __init__(self, app: TrainApp, status: StatusReporter) -> None:
        self._app = app
        self._status = status

    def export(self, experiment_info: Mapping[str, Any], runtime: str) -> str:
        """Export the best checkpoint for "ONNXRuntime" or "TensorRT"; returns the path."""
        app = self._app
        checkpoint = Path(experiment_info["best_checkpoint"])
        output = Path(
            app.output_dir, app._export_dir_name, f"{checkpoint.stem}{_SUFFIXES[runtime]}"
        )
        ann_file = annotation_file(Path(app.work_dir, COCO_FOLDER), "val")
        bar = StageBar(app.progress_bar_main)
        app.progress_bar_main.show()
        try:
            images = None
            if ann_file.is_file():
                images = partial(validation_images, ann_file, Path(app.val_dataset_dir))
            else:
                logger.warning("%s: not found; comparing the export on generated images", ann_file)
            export_checkpoint(checkpoint, output, find_images=images, on_progress=bar)
            if runtime == "ONNXRuntime" and self._is_int8_selected:
                self._export_int8(output, bar)
            return str(output)
        except Exception as error:
            self._status.add_missing(runtime, describe_error(error))
            raise
        finally:
            bar.close()
            app.progress_bar_main.hide()

    @property
    def _is_int8_selected(self) -> bool:
        values = complete_hyperparameters(read_hyperparameters(self._app.hyperparameters))
        return bool(values["export_int8"])

    def _export_int8(self, onnx_file: Path, bar: StageBar) -> None:
        """Also write an INT8 file; a failure leaves the float32 file."""
        app, coco = self._app, Path(self._app.work_dir, COCO_FOLDER)
        train = Split("train", annotation_file(coco, "train"), Path(app.train_dataset_dir))
        val = Split("val", annotation_file(coco, "val"), Path(app.val_dataset_dir))
        try:
            export_quantized(onnx_file, data=Splits(train, val), on_progress=bar)
        except RTDETRError as error:
            self._status.add_missing("INT8", describe_error(error))

    def upload_companions(self, exported: Mapping[str, str], remote_dir: str) -> None:
        """Upload model cards, parity reports and INT8 files.

        `TrainApp._upload_export_weights` (supervisely/nn/training/train_app.py) uploads one file of
        each export.

        Args:
            exported: files by runtime.
            remote_dir: of the experiment in Team Files.
        """
        files = {
            path
            for file in map(Path, exported.values())
            for path in (card_file(file), file.with_name(PARITY_FILE), int8_file(file))
            if path.is_file()
        }
        if files:
            paths = [str(file) for file in sorted(files)]
            folder = f"{remote_dir.rstrip('/')}/{self._app._export_dir_name}"
            remote = [f"{folder}/{Path(path).name}" for path in paths]
            self._app._api.file.upload_bulk(self._app.team_id, paths, remote)
