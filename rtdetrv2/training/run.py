"""Train with the given options."""

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.data.metrics.evaluator import Evaluation
from rtdetrv2_pytorch.src.misc import distributed
from rtdetrv2_pytorch.src.misc.errors import ConfigError, extra
from rtdetrv2_pytorch.src.report.training_images import TrainingImages
from rtdetrv2_pytorch.src.report.training_report import write_report_of
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver.checkpointing import lock_output
from rtdetrv2_pytorch.src.solver.events import FanOut, FitResult, TrainingEvents
from rtdetrv2_pytorch.src.solver.stopping import StopFlag
from rtdetrv2_pytorch.src.trackers import Trackers

from .examination import examine_for_training
from .options import TrainOptions
from .plan import configure, plan_run
from .progress import TrainingProgress


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    """The results of `train`.

    Attributes:
        cfg: the configuration of the run; `cfg.output_dir` is its folder.
        result: of the training; None with `test_only`.
        evaluation: of the given weights with `test_only`, otherwise of the best epoch.
        report: path of report.html, if it was written.
    """

    cfg: YAMLConfig
    result: FitResult | None
    evaluation: Evaluation | None
    report: Path | None


def train(
    options: TrainOptions,
    *,
    progress: TrainingProgress,
    followers: Sequence[TrainingEvents] = (),
    stop: StopFlag | None = None,
) -> TrainOutcome:
    """Examine the dataset, then train, or evaluate with `test_only`.

    Works in every rank of a distributed training, too.

    Args:
        options: of the training.
        progress: follows the steps before and after the epochs.
        followers: follow the epochs.
        stop: ends the training at its next batch; signals do in any case, in the main thread.

    Raises:
        RTDETRError: if an option, the dataset or a checkpoint is invalid, or the training fails.
    """
    try:
        return _train(options, progress, followers, stop)
    except Exception as error:
        if isinstance(error, ConfigError):
            options.name_source(error)
        reported = distributed.report_failure(error)
        if reported is error:
            raise
        raise reported from error
    finally:
        distributed.shutdown()


def _train(
    options: TrainOptions,
    progress: TrainingProgress,
    followers: Sequence[TrainingEvents],
    stop: StopFlag | None,
) -> TrainOutcome:
    start_s = time.monotonic()
    with extra("train"):  # before anything is read or written
        import faster_coco_eval  # noqa: F401
        import matplotlib  # noqa: F401
        import scipy  # noqa: F401
        import tensorboard  # noqa: F401
    plan = plan_run(options, progress)
    is_first = os.environ.get("RANK", "0") == "0"  # the other ranks wait for it
    with lock_output(plan.output_dir) if is_first else contextlib.nullcontext():
        cfg, splits = configure(options, plan, progress)
        progress.configured(cfg)
        is_new = not (options.test_only or cfg.settings.resume)
        if options.examine and splits and is_first and is_new:
            name = (options.folder or Path()).resolve().name
            examine_for_training(name, splits, cfg, progress)
        progress.show("building the network and loading the data")
        if options.test_only:
            if distributed.is_main():
                progress.headline("Evaluating", options.resume or options.tuning or "")
            evaluation = DetSolver(cfg, events=FanOut(followers)).val()
            return TrainOutcome(cfg=cfg, result=None, evaluation=evaluation, report=None)
        with Trackers(cfg) as trackers:
            images = TrainingImages(cfg, on_image=trackers.log_image)
            events = FanOut([trackers, images, *followers])
            solver = DetSolver(
                cfg,
                events=events,
                start_s=start_s,
                overwrite=options.overwrite,
                stop_flag=stop,
            )
            result = solver.fit()
            report = write_report_of(cfg, result)
            trackers.log_results(result, report)
        return TrainOutcome(cfg=cfg, result=result, evaluation=result.best, report=report)
