"""Find probable annotation errors in the data of a finished training."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import get, merge_layers, read_layers
from rtdetrv2_pytorch.src.data.metrics.evaluator import Evaluation
from rtdetrv2_pytorch.src.deploy.runtimes import Runtime
from rtdetrv2_pytorch.src.misc.errors import ConfigError, RTDETRError
from rtdetrv2_pytorch.src.misc.files import write_text
from rtdetrv2_pytorch.src.misc.text import counted
from rtdetrv2_pytorch.src.report.label_errors import RADAR_JSON
from rtdetrv2_pytorch.src.report.report_source import ReportSource, report_source
from rtdetrv2_pytorch.src.solver.checkpointing import LAST
from rtdetrv2_pytorch.src.solver.events import TrainingEvents
from rtdetrv2_pytorch.src.solver.run import MODEL_CONFIG
from rtdetrv2_pytorch.src.solver.stopping import StopFlag

from ...training import run as training
from ...training.finished_run import best_weights, open_run
from ...training.options import TrainOptions
from ...training.progress import TrainingProgress
from ..annotated_split import AnnotatedSplit, evaluate_runtime
from ..opening import open_model
from .folds import Fold, join_detections, save_detections, write_folds
from .suspicions import KINDS, Suspicion, find_suspicions

_FOLDER = "label_radar"  # of the folds, in the folder of the run
_VERSION = 1
_BATCH = 8
Start = Literal["weights", "checkpoint"]


class RadarStopped(RTDETRError):  # noqa: N818 (not an error)
    """The radar was stopped; the same command resumes it."""


@dataclass(frozen=True, kw_only=True)
class RadarOptions:
    """Options of the label radar.

    Attributes:
        data: dataset folder, if it has moved since the training.
        device: default: a GPU if there is one.
        folds: parts of the training images; each is detected by a network trained on the others.
        epochs: of each network; None: as many as keep all of them within the training's own cost.
        start: whether they start from the checkpoint of the run, or from its initial weights.
        seed: of the folds and of the planted errors.
        update: "key=value" of the configuration of the networks.
    """

    data: Path | None = None
    device: str | None = None
    folds: int = 3
    epochs: int | None = None
    start: Start = "checkpoint"
    seed: int = 0
    update: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ConfigError(f"folds = {self.folds}: must be 2 or higher")
        if self.epochs is not None and self.epochs < 1:
            raise ConfigError(f"epochs = {self.epochs}: must be 1 or higher")


@dataclass(frozen=True, kw_only=True)
class RadarResult:
    """The result of the label radar.

    Attributes:
        path: `label_radar.json`.
        suspicions: most probable first.
        rates: estimated errors by split and kind, as a fraction of the labels.
        images: number of images by split.
        labels: number of labels by split.
        source: input of the report of the run.
    """

    path: Path
    suspicions: list[Suspicion]
    rates: dict[str, dict[str, float]]
    images: dict[str, int]
    labels: dict[str, int]
    source: ReportSource


def find_label_errors(
    run: Path,
    options: RadarOptions,
    *,
    progress: TrainingProgress,
    followers: Sequence[TrainingEvents] = (),
    stop: StopFlag | None = None,
) -> RadarResult:
    """Find probable annotation errors in both splits of a training, and write them to its folder.

    Images of the validation split are detected by the trained network, those of the training split
    by networks that were not trained on them. Finished networks are not trained again.

    Args:
        run: output folder of the training.
        options: of the radar.
        progress: follows the steps.
        followers: follow the trainings.
        stop: stops the radar at the next training batch.

    Raises:
        RadarStopped: if a training was stopped, by a signal or by `stop`.
        RTDETRError: if the run or its data are not usable.
    """
    progress.show("reading the dataset")
    cfg = open_run(run, data=options.data, device=options.device)
    annotations = cfg.train_dataset.annotations
    if len(annotations) < options.folds:
        raise ConfigError(
            f"folds = {options.folds}: the training split has "
            f"{counted(len(annotations), 'image')}; give fewer"
        )
    epochs = options.epochs or epochs_within(int(cfg.yaml_cfg["epoches"]), options.folds)
    weights = best_weights(run).stat()
    settings = {
        "epochs": epochs,
        "start": options.start,
        "update": list(options.update),
        "checkpoint": [weights.st_size, weights.st_mtime_ns],
    }
    folds = write_folds(
        annotations, run / _FOLDER, options.folds, seed=options.seed, settings=settings
    )
    for number, fold in enumerate(folds, start=1):
        if not fold.detections.is_file():
            progress.headline("Label radar", f"network {number} of {len(folds)}")
            outcome = training.train(
                _fold_options(run, cfg, fold, epochs, options),
                progress=progress,
                followers=followers,
                stop=stop,
            )
            assert outcome.result is not None
            # Of best.pth, on the images that the network was not trained on.
            evaluation = outcome.result.confirmed
            if outcome.result.stopped or evaluation is None:
                raise RadarStopped(
                    f"{outcome.result.stopped or 'stopped'}: the label radar is incomplete; run "
                    "the same command again to resume it"
                )
            assert evaluation.detections is not None
            save_detections(fold, evaluation.detections)
    found = {"train": join_detections(folds, annotations)}
    evaluation = _detect(
        open_model(best_weights(run), device=options.device, config=run / MODEL_CONFIG),
        AnnotatedSplit(cfg.val_dataset.annotations, cfg.val_dataset.img_folder, ()),
        progress,
    )
    assert evaluation.detections is not None
    found["val"] = evaluation.detections

    progress.show("comparing labels and detections")
    suspicions: list[Suspicion] = []
    rates, images, labels = {}, {}, {}
    for split, data in (("train", cfg.train_dataset), ("val", cfg.val_dataset)):
        listed, rates[split] = find_suspicions(
            data.annotations, found[split], split=split, seed=options.seed
        )
        suspicions += listed
        images[split] = len(data.annotations)
        labels[split] = int((data.annotations.iscrowd == 0).sum())
    suspicions.sort(key=lambda each: (-each.probability, -each.strength))
    trained = merge_layers(read_layers(run / MODEL_CONFIG))
    result = RadarResult(
        path=run / RADAR_JSON,
        suspicions=suspicions,
        rates=rates,
        images=images,
        labels=labels,
        source=replace(report_source(cfg, run, evaluation), config=trained),
    )
    write_text(result.path, json.dumps(_as_dict(result, settings | {"folds": options.folds})))
    return result


def epochs_within(epochs: int, folds: int) -> int:
    """Return the epochs of each network, so that all of them take less time than the training.

    Each of k networks is trained on (k - 1) / k of the images. One epoch of the training is the
    time of their starts and evaluations. Each network has at least one epoch, so that all of them
    take longer than a training of fewer than k epochs.
    """
    return max(math.floor((epochs - 1) / (folds - 1)), 1)


def _fold_options(
    run: Path, cfg: YAMLConfig, fold: Fold, epochs: int, options: RadarOptions
) -> TrainOptions:
    """Return the options to train the network of a fold, or to resume it."""
    weights = str(best_weights(run))
    if options.start == "weights":
        weights = get(merge_layers(read_layers(run / MODEL_CONFIG)), ("tuning",)) or ""
    is_started = (fold.output / LAST).is_file()
    img_folder = cfg.train_dataset.img_folder
    return TrainOptions(
        config=run / MODEL_CONFIG,
        epochs=epochs,
        tuning=None if is_started else weights,
        resume="" if is_started else None,
        device=options.device,
        output_dir=str(fold.output),
        examine=False,
        update=[
            f"train_dataloader.dataset.ann_file={fold.train}",
            f"train_dataloader.dataset.img_folder={img_folder}",
            f"val_dataloader.dataset.ann_file={fold.held_out}",
            f"val_dataloader.dataset.img_folder={img_folder}",
            *("report=False", "pictures=False", "loggers=[]", "checkpoint_freq=0", "patience=0"),
            f"eval_freq={epochs}",  # only the last epoch, so that the labels do not select one
            *options.update,
        ],
    )


def _detect(runtime: Runtime, split: AnnotatedSplit, progress: TrainingProgress) -> Evaluation:
    return evaluate_runtime(
        runtime,
        split,
        batch_size=_BATCH,
        on_progress=lambda done, total: progress.show("detecting", done, total),
    )


def _as_dict(result: RadarResult, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "settings": settings,
        "kinds": KINDS,
        "images": result.images,
        "labels": result.labels,
        "estimated_rates": {
            split: {kind: None if math.isnan(rate) else rate for kind, rate in rates.items()}
            for split, rates in result.rates.items()
        },
        "suspicions": [each.as_dict() for each in result.suspicions],
    }
