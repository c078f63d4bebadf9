"""Measure the speed of a training on a few batches, and keep it within its time budget."""

import copy
import logging
import os
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from ..core.catalog import random_backbones
from ..core.fitting import fit_budget, schedule_changes
from ..core.yaml_config import YAMLConfig
from ..core.yaml_files import merge
from ..misc import distributed
from ..misc.text import counted
from ..misc.weights import load_checkpoint
from ..robustness.memory import free_memory
from ..timing.budget import TimeBudget
from ..timing.estimates import EpochTime, Speed, parse_duration
from .loop import evaluate, train_one_epoch
from .progress import EpochProgress
from .run import TrainingRun
from .stopping import StopFlag, TimeLimit

logger = logging.getLogger(__name__)

TIMED_BATCHES = 4
_LIMIT_S = 15.0  # after that, two batches have to do
_PROBE: Mapping[str, Any] = {
    "num_workers": 0,  # loading is timed alone
    "cache": "none",
    "compile": False,
    "tuning": "",
    "resume": "",
    "train_dataloader": {"collate_fn": {"scales": None}},  # their mean is the base size
    **random_backbones(),
}


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


def start_budget(
    cfg: YAMLConfig, start_s: float, reserve_s: float
) -> tuple[TimeBudget | None, list[str]]:
    """Return the time budget of a run, and notes about the epochs chosen for it.

    A resumed run keeps its epochs and the rest of its time.

    Args:
        cfg: no part that depends on the number of epochs is built yet.
        start_s: reading of `time.monotonic` when the budget begins.
        reserve_s: for what follows the training.

    Raises:
        CheckpointError: if the resumed checkpoint cannot be loaded.
    """
    settings = cfg.settings
    if settings.time_budget is None:
        return None, []
    budget = TimeBudget(
        seconds=parse_duration(settings.time_budget),
        start_s=start_s,
        reserve_s=reserve_s,
        eval_freq=settings.eval_freq,
    )
    if not settings.resume:
        return budget, _choose_epochs(cfg, budget)
    resumed = load_checkpoint(settings.resume)
    state = (resumed.get("progress") or {}).get("time_budget")
    if not state:
        return budget, []
    budget.load_state_dict(state)
    return budget, fit_budget(cfg.yaml_cfg, resumed["config"]["epoches"], "of the resumed run")


def skip_to_fit(run: TrainingRun) -> None:
    """Skip epochs of a run for which the time budget does not suffice."""
    budget, epochs = run.budget, run.settings.epoches
    if budget is None or run.step:
        return
    budget.tail = _tail(run)
    (epoch, *_) = distributed.all_gather_objects(budget.next_epoch(run.epoch, epochs))
    if epoch > run.epoch:
        logger.warning(
            "time_budget %s: epochs %d to %d are skipped, so that the last %d end in time",
            run.settings.time_budget,
            run.epoch + 1,
            epoch,
            epochs - epoch,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # raised before the first optimizer step
        for _ in range(run.epoch, epoch):
            run.warmup.step_epoch()
    run.epoch = epoch


def _tail(run: TrainingRun) -> int:
    """Return the number of epochs after the last change of the schedule, or a tenth of the run."""
    epochs, values = run.settings.epoches, run.cfg.yaml_cfg
    changes = [epoch for epoch in schedule_changes(values) if 0 < epoch < epochs]
    return epochs - max(changes) if changes else max(1, round(epochs / 10))


def deadline(run: TrainingRun, flag: StopFlag) -> StopFlag:
    """Return what ends the current epoch: a stop request, or the time budget."""
    budget, epoch = run.budget, run.epoch
    if budget is None:
        return flag
    is_last, is_evaluated = epoch + 1 >= run.settings.epoches, run.is_evaluated(epoch)
    return TimeLimit(flag, lambda: budget.is_late(is_last=is_last, is_evaluated=is_evaluated))


def is_in_time(run: TrainingRun) -> bool:
    """Return whether the time budget, if there is one, suffices for another evaluation."""
    is_possible = run.budget is None or run.budget.fits_evaluation()
    return bool(distributed.all_gather_objects(is_possible)[0])


def warn_of_short_epoch(run: TrainingRun, progress: EpochProgress) -> None:
    """Log that the time budget ended an epoch early."""
    logger.warning(
        "time_budget %s: epoch %d ended after %d of %s, because training is slower than measured",
        run.settings.time_budget,
        run.epoch + 1,
        progress.step,
        counted(progress.num_steps, "step"),
    )


def _choose_epochs(cfg: YAMLConfig, budget: TimeBudget) -> list[str]:
    """Set the number of epochs that fits in the time budget, and adapt the schedule.

    Measures the speed with a copy of the configuration, on all ranks together. The durations that
    the budget expects are the measured ones.

    Args:
        cfg: no part that depends on the number of epochs is built yet.
        budget: of the run.

    Returns:
        Notes for the user.
    """
    settings, probe = cfg.settings, _unbuilt(cfg, _PROBE)
    loader, val_images = probe.train_dataloader, len(probe.val_dataset)
    speed = measure_speed(probe)
    ranks, steps = distributed.world_size(), len(loader)
    del probe, loader
    free_memory()
    slot = cfg.yaml_cfg.get("train_dataloader") or {}
    workers = settings.num_workers if settings.num_workers is not None else slot.get("num_workers")
    step_s = speed.step_s(
        num_workers=int(workers or 0),
        num_cores=max(1, (os.cpu_count() or 1) // ranks),
        is_gpu=cfg.device.type == "cuda",
    )
    one = EpochTime(steps * step_s, val_images / ranks * speed.val_image_s, settings.eval_freq)
    # All ranks choose what the slowest one can do, in the time that the main one has left.
    found = distributed.all_gather_objects((one.train_s, one.eval_s, budget.left_s()))
    one = EpochTime(max(t for t, _, _ in found), max(e for _, e, _ in found), settings.eval_freq)
    budget.expect(one)
    left_s = found[0][2] - one.eval_s  # without that of best.pth
    epochs = one.epochs_within(left_s)
    if distributed.is_main() and one.seconds(0, 1) > left_s:
        logger.warning(
            "time_budget %s: %.0f s are left, but an epoch takes about %.0f s and an evaluation "
            "%.0f s; the only epoch ends early. Give more time, or use fewer or smaller images",
            settings.time_budget,
            found[0][2],
            one.train_s,
            one.eval_s,
        )
    why = (
        f"time_budget {settings.time_budget}: an epoch of {counted(steps, 'step')} takes about "
        f"{one.train_s:.3g} s, an evaluation {one.eval_s:.3g} s"
    )
    return fit_budget(cfg.yaml_cfg, epochs, why)


def _unbuilt(cfg: YAMLConfig, changes: Mapping[str, Any]) -> YAMLConfig:
    """Return a copy of a configuration with other values, of which no part is built."""
    probe = copy.copy(cfg)
    for name, part in vars(YAMLConfig).items():
        if isinstance(part, cached_property) and name != "device":
            vars(probe).pop(name, None)
    probe.yaml_cfg = merge(copy.deepcopy(cfg.yaml_cfg), changes)
    probe.notes = []
    probe._has_classes = False
    return probe
