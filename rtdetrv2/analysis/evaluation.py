"""Accuracy of a model file on annotated images, in any runtime."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.core.yaml_files import get, merge_layers, read_layers
from rtdetrv2_pytorch.src.data.metrics.evaluator import Evaluation
from rtdetrv2_pytorch.src.data.split_names import Part
from rtdetrv2_pytorch.src.data.splits import CONVERTED, Split, find_split
from rtdetrv2_pytorch.src.deploy.model_card import ModelCard
from rtdetrv2_pytorch.src.deploy.runtimes import Runtime
from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.report.report_source import ReportSource
from rtdetrv2_pytorch.src.report.training_report import write_report

from .annotated_split import AnnotatedSplit, coco_results, evaluate_runtime, read_split
from .opening import open_model

OnProgress = Callable[[str, int, int], None]  # activity, items done, items in total


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The accuracy of a model on a split.

    Attributes:
        evaluation: metrics in total and per class.
        split: the images, and the classes that the model and they have in common.
        card: of the model.
        runtime: pytorch, onnxruntime, openvino or tensorrt.
        device: the device that the model ran on.
        note: which images were used.
    """

    evaluation: Evaluation
    split: AnnotatedSplit
    card: ModelCard
    runtime: str
    device: str
    note: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain values: AP, AP50, ..., per_class, best_threshold and what was evaluated."""
        metrics = self.evaluation.as_dict()
        del metrics["val_loss"], metrics["val_losses"]  # exported models compute no losses
        return {
            **metrics,
            "runtime": self.runtime,
            "device": self.device,
            "images": self.note,
            "unknown_classes": list(self.split.unknown_classes),
        }

    def coco_results(self) -> list[dict[str, Any]]:
        """Return all detections as the entries of a COCO results file."""
        return coco_results(self.evaluation, self.split.annotations)

    def write_report(self, folder: Path, config: Mapping[str, Any]) -> Path:
        """Write report.html to a folder: thresholds, confusion, calibration, images.

        Args:
            folder: output folder.
            config: values to list in the report.
        """
        source = ReportSource(
            folder=folder,
            config={**config, "pixel_range": self.card.pixel_range},
            evaluation=self.evaluation,
            annotations=self.split.annotations,
            img_folder=self.split.img_folder,
        )
        return write_report(source)


def evaluate(
    model: str | Path | Runtime,
    *,
    data: Path | None = None,
    config: Path | None = None,
    split: Part = "val",
    runtime: str | None = None,
    device: str | None = None,
    batch_size: int = 8,
    score: float = 0.0,
    class_names: Sequence[str] | None = None,
    work_dir: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Measured:
    """Evaluate a model on a split of a dataset.

    Classes are matched by name. Objects of classes that the model does not have, and detections
    of classes that the dataset does not have, are ignored.

    Args:
        model: checkpoint, ONNX file, TensorRT engine, or an opened runtime.
        data: dataset folder in any supported format.
        config: YAML file: its data if `data` is not given, and the network of a checkpoint that
            does not contain its configuration.
        split: the images to use.
        runtime: pytorch, onnxruntime, openvino or tensorrt; default: by the suffix of the file.
        device: default: a GPU if the runtime can use it.
        batch_size: images per call.
        score: minimum score of a detection.
        class_names: in label order, for a checkpoint that does not contain them.
        work_dir: for converted annotations; default: a temporary folder.
        on_progress: called with the activity, and the number of images done and of all images.

    Raises:
        ConfigError: if an option is invalid.
        CheckpointError: if the model cannot be loaded.
        DatasetError: if the data is not usable or has no class of the model.
        ExportError: if the runtime rejects the file.
    """
    report = on_progress or (lambda activity, done, total: None)
    if batch_size < 1:
        raise ConfigError(f"batch_size = {batch_size}: must be 1 or higher")
    if not 0 <= score <= 1:
        raise ConfigError(f"score = {score}: must be from 0 to 1")
    with ExitStack() as stack:
        report("reading the dataset", 0, 0)
        if work_dir is None:
            work_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files, note = _find_data(data, config, split, work_dir)
        report("loading the model", 0, 0)
        if isinstance(model, str | Path):
            model = open_model(
                model, runtime, device=device, config=config, class_names=class_names
            )
        annotated = read_split(files.ann_file, files.img_folder, model.card)
    evaluation = evaluate_runtime(
        model,
        annotated,
        batch_size=batch_size,
        score=score,
        on_progress=lambda done, total: report("evaluating", done, total),
    )
    return Measured(
        evaluation=evaluation,
        split=annotated,
        card=model.card,
        runtime=model.kind,
        device=str(model.device),
        note=note,
    )


def _find_data(
    data: Path | None, config: Path | None, split: Part, work_dir: Path
) -> tuple[Split, str]:
    """Return a split in COCO format and a note about it."""
    if data is not None:
        if not data.is_dir():
            raise ConfigError(f"{data}: no such folder; give the folder of a dataset")
        return find_split(data, split, work_dir / CONVERTED)
    if config is None:
        raise ConfigError("no data: give a dataset folder (--data), or a configuration (-c)")
    dataset = get(merge_layers(read_layers(config)), (f"{split}_dataloader", "dataset"))
    if not isinstance(dataset, dict) or not dataset.get("ann_file"):
        raise ConfigError(
            f"{config}: {split}_dataloader.dataset has no ann_file; choose another split, or give "
            "a dataset folder (--data)"
        )
    files = Split(split, Path(dataset["ann_file"]), Path(dataset.get("img_folder", "")))
    return files, f"Split {split}: {files.ann_file}"
