"""Every work-around for the exports of the Supervisely SDK, each with its reason.

`tests/app/test_sdk_patches.py` asks the bare SDK about each.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.deploy.parity import PARITY_FILE
from rtdetrv2_pytorch.src.deploy.tensorrt import card_file
from supervisely_integration import export

from .coco import annotation_file
from .evaluation import BenchmarkedTrainApp, overheard_errors

logger = logging.getLogger(__name__)

COCO_FOLDER = "coco"  # annotations of the splits, in the app's working folder


class StageBar:
    """Shows stages of work as one bar after another.

    Args:
        new_bar: makes a bar from a message and a total.
    """

    def __init__(self, new_bar: Callable[..., Any]) -> None:
        self._new_bar = new_bar
        self._stage, self._bar = "", None

    def __call__(self, what: str, done: int, total: int) -> None:
        """Move the bar of a stage; see `parity.OnProgress`."""
        if what != self._stage:
            self.close()
            logger.info("Export: %s", what)
            self._stage = what
            self._bar = self._new_bar(message=f"Export: {what}", total=max(total, 1))
        assert self._bar is not None
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Close the last bar."""
        if self._bar is not None:
            self._bar.close()


class ExportingTrainApp(BenchmarkedTrainApp):
    """The SDK's app whose exports are proved, complete, and do not fail in silence."""

    def export_best(self, experiment_info: dict[str, Any], function: Any, suffix: str) -> str:
        """Export the best checkpoint, compared on the validation split.

        Args:
            experiment_info: of the training that has just ended.
            function: `export.export_onnx` or `export.export_tensorrt`.
            suffix: of the file.

        Returns:
            Path of the file, which goes into `export` of the experiment.
        """
        checkpoint = Path(experiment_info["best_checkpoint"])
        output = Path(self.output_dir, self._export_dir_name, f"{checkpoint.stem}{suffix}")
        ann_file = annotation_file(Path(self.work_dir, COCO_FOLDER), "val")
        bar = StageBar(self.progress_bar_main)
        self.progress_bar_main.show()
        try:
            find_images = export.split_images(ann_file, Path(self.val_dataset_dir))
            function(checkpoint, output, find_images=find_images, on_progress=bar)
        finally:
            bar.close()
            self.progress_bar_main.hide()
        return str(output)

    def _export_weights(self, experiment_info: dict[str, Any]) -> tuple[dict[str, str], str | None]:
        """Not in the list: a failed export is logged, and the training ends as if all were well."""
        with overheard_errors() as reasons:
            exported: tuple[dict[str, str], str | None] = super()._export_weights(experiment_info)
        if reasons:
            text = f"The experiment is complete, but not its exports: {'; '.join(reasons)}"
            self.last_words = " ".join(filter(None, (self.last_words, text)))
        return exported

    def _upload_export_weights(
        self, export_weights: dict[str, str], export_classes_path: str | None, remote_dir: str
    ) -> dict[str, str]:
        """Not in the list: only one file of each export is uploaded, without what describes it."""
        beside = {
            path
            for file in map(Path, export_weights.values())
            for path in (card_file(file), file.with_name(PARITY_FILE))
            if path.is_file()
        }
        remote: dict[str, str] = super()._upload_export_weights(
            export_weights, export_classes_path, remote_dir
        )
        if beside:
            files = sorted(beside)
            folder = f"{remote_dir.rstrip('/')}/{self._export_dir_name}"
            self._api.file.upload_bulk(
                self.team_id, [str(file) for file in files], [f"{folder}/{f.name}" for f in files]
            )
        return remote
