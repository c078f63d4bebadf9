"""A training, from a split project on disk to the files of an experiment; without the SDK."""

import logging
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.doctor.data_report import REPORT_HTML, REPORT_JSON
from rtdetrv2_pytorch.src.doctor.examination import Options
from rtdetrv2_pytorch.src.report.label_errors import RADAR_JSON
from rtdetrv2_pytorch.src.report.training_images import TrainingImages
from rtdetrv2_pytorch.src.report.training_report import REPORT, write_report_of
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver.events import FanOut, TrainingEvents
from rtdetrv2_pytorch.src.solver.stopping import StopFlag

from .data_check import Origins, examine_splits
from .experiment import ExperimentInfo
from .label_radar.search import search_labels
from .lifecycle import TrainingStopped
from .project_splits import write_coco
from .ranks import train_on_devices
from .run_config import RunFiles, portable_config, run_config, write_config

logger = logging.getLogger(__name__)

MODEL_CONFIG = "model_config.yml"
REPORTS = (REPORT, REPORT_HTML, REPORT_JSON, RADAR_JSON)  # in the result folder
LOGS = "summary"  # TensorBoard event files, in the run folder


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """The model, data, settings and output folder of a training."""

    model_name: str
    base_config: Path  # configuration of the model
    checkpoint: Path | None  # initial weights; None: random
    resume: Path | None  # checkpoint of the same training, from an earlier launch
    classes: list[str]
    convert_shapes: bool  # train on the bounding boxes of non-rectangular objects
    hyperparameters: dict[str, Any]
    train_dir: Path
    val_dir: Path
    coco_dir: Path  # for the annotation files
    run_dir: Path  # for the checkpoints of the solver; outlives the process
    result_dir: Path  # for the files to upload
    devices: tuple[str, ...]  # one rank on each
    name: str | None = None  # of the experiment
    origins: Origins = field(default_factory=Origins)  # original names of the images
    start_s: float = field(default_factory=time.monotonic)  # of the time budget
    reserve_s: float = 0.0  # of the time budget, for what follows the training


def run_training(
    request: TrainingRequest, events: TrainingEvents, stop: StopFlag
) -> ExperimentInfo:
    """Train.

    Args:
        request: what to train.
        events: receives the training events.
        stop: ends the training at its next batch.

    Returns:
        The files to upload: copies, so that the run folder stays complete until the upload is done.

    Raises:
        TrainingStopped: if it was stopped before there was anything to save.
        RTDETRError: if data, configuration or weights are invalid, or the training fails.
    """
    data = write_coco(
        request.train_dir,
        request.val_dir,
        request.coco_dir,
        request.classes,
        convert_shapes=request.convert_shapes,
    )
    files = RunFiles(
        base_config=request.base_config,
        train_images=data.train.img_folder,
        train_annotations=data.train.ann_file,
        val_images=data.val.img_folder,
        val_annotations=data.val.ann_file,
        output_dir=request.run_dir,
        log_dir=request.run_dir / LOGS,
        tuning=None if request.resume else request.checkpoint,
        resume=request.resume,
    )
    run = run_config(
        request.hyperparameters,
        files,
        num_classes=len(request.classes),
        name=request.name,
        device=request.devices[0],
        num_train_images=data.train.num_images,
    )
    for note in run.notes:
        logger.info("changed: %s", note)
    cfg = YAMLConfig(request.base_config, **run.overrides)
    examined = examine_splits(
        data,
        request.origins,
        request.result_dir,
        Options.of_model(cfg.yaml_cfg, pixel_range=cfg.settings.pixel_range),
        stop=stop,
    )
    if examined.pixel_range and not request.resume:  # a resumed run keeps that of its checkpoint
        run.overrides["pixel_range"] = cfg.yaml_cfg["pixel_range"] = list(examined.pixel_range)
    if stop.is_set:
        raise TrainingStopped(stop.reason)

    request.run_dir.mkdir(parents=True, exist_ok=True)
    shutil.copy2(request.result_dir / REPORT_JSON, request.run_dir)  # for the training report
    if len(request.devices) > 1:
        ranks = train_on_devices(
            request.base_config,
            run.overrides,
            request.devices,
            events,
            stop,
            time_budget={"start_s": request.start_s, "reserve_s": request.reserve_s},
        )
        result, values, report = ranks.result, ranks.config, ranks.report
    else:
        followers = FanOut([TrainingImages(cfg), events])
        result = DetSolver(
            cfg,
            events=followers,
            stop_flag=stop,
            start_s=request.start_s,
            reserve_s=request.reserve_s,
        ).fit()
        values, report = cfg.yaml_cfg, write_report_of(cfg, result)
    if request.hyperparameters.get("label_radar") and not stop.is_set:
        found = search_labels(request.run_dir, request.devices[0], events, stop)
        if found is not None:
            report = found.write(request.result_dir, request.origins.restore)
    if report is not None:
        page = request.origins.restore_in_page(report.read_text(encoding="utf-8"))
        (request.result_dir / REPORT).write_text(page, encoding="utf-8")
    return ExperimentInfo.from_checkpoints(
        request.model_name,
        write_config(portable_config(values), request.result_dir / MODEL_CONFIG),
        {
            name: Path(shutil.copy2(path, request.result_dir))
            for name, path in result.checkpoints.items()
        },
    )
