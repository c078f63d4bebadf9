"""Measure the speed of a training on a few batches, and compute the time of the whole training."""

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.solver.loop import evaluate, train_one_epoch
from rtdetrv2_pytorch.src.solver.progress import EpochProgress
from rtdetrv2_pytorch.src.solver.run import TrainingRun
from rtdetrv2_pytorch.src.solver.stopping import StopFlag

TIMED_BATCHES = 4
_LIMIT_S = 15.0  # after that, two batches have to do


@dataclass(frozen=True)
class Speed:
    """Speed of a training on one device, in seconds."""

    compute_s: float  # per training step, without loading
    load_s: float  # to load the batch of a step in one process
    val_image_s: float  # per validation image, with loading

    def step_s(self, *, num_workers: int, num_cores: int, is_gpu: bool) -> float:
        """Return the seconds per training step.

        Workers load batches while a GPU computes. On a CPU, they compete with the training for its
        cores.

        Args:
            num_workers: processes that load images; 0 loads them between the steps.
            num_cores: of the CPU.
            is_gpu: whether the training runs on a GPU.
        """
        if num_workers == 0:
            return self.compute_s + self.load_s
        if is_gpu:
            return max(self.compute_s, self.load_s / min(num_workers, num_cores))
        return self.compute_s + self.load_s / num_cores


def epoch_seconds(*, steps: int, step_s: float, num_val_images: int, val_image_s: float) -> float:
    """Return the seconds of an epoch: its training steps and its evaluation."""
    return steps * step_s + num_val_images * val_image_s


def epochs_within(budget_s: float, epoch_s: float) -> int:
    """Return the number of epochs that fit in a time budget, 1 or more."""
    return max(1, math.floor(budget_s / epoch_s))


def measure_speed(cfg: YAMLConfig) -> Speed:
    """Train and validate on the first batches of a configuration, without saving anything.

    The first batch is slower and counts only if it is the only one.

    Args:
        cfg: its data loaders load images in this process (`num_workers: 0`).
    """
    run = TrainingRun.create(cfg)
    compute_s, load_s = _time_training(run)
    return Speed(compute_s, load_s, _time_validation(run))


def _time_training(run: TrainingRun) -> tuple[float, float]:
    stop, laps = StopFlag(), _Laps(run.device)
    loads: list[float] = []

    def after_step(progress: EpochProgress) -> None:
        loads.append(progress.data_s - sum(loads))
        if laps.add():
            stop.request("timing finished")

    train_one_epoch(run, stop=stop, after_step=after_step)
    computed = [lap - load for lap, load in zip(laps.seconds, loads, strict=True)]
    return _typical(computed), _typical(loads)


def _time_validation(run: TrainingRun) -> float:
    cfg = run.cfg
    stop, laps = StopFlag(), _Laps(run.device)

    def after_step(done: int, total: int) -> None:
        if laps.add():
            stop.request("timing finished")

    evaluate(
        cfg.model,
        run.criterion,
        cfg.postprocessor.to(run.device),
        cfg.val_dataloader,
        cfg.evaluator,
        device=run.device,
        precision=run.amp.precision,
        stop=stop,
        after_step=after_step,
    )
    return _typical(laps.seconds) / min(cfg.val_dataloader.batch_size, len(cfg.val_dataset))


class _Laps:
    """Times consecutive batches.

    Args:
        device: that computes them.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: list[float] = []
        self._device = device
        self._begin = self._last = time.perf_counter()

    def add(self) -> bool:
        """End a lap; return whether the laps suffice."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now
        is_late = now - self._begin > _LIMIT_S and len(self.seconds) > 1
        return is_late or len(self.seconds) >= TIMED_BATCHES


def _typical(seconds: Sequence[float]) -> float:
    return statistics.median(seconds[1:] or seconds)
