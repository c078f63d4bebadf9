"""From the engine's totals to the reports that events carry."""

import math
import time
from collections.abc import Mapping, Sequence

import torch

from ..core.yaml_config import YAMLConfig
from ..data.loading.loader import DataLoader
from ..data.metrics.evaluator import Evaluation
from ..misc import distributed
from .best import BestSoFar
from .bottleneck import bottleneck
from .events import EpochReport, StepReport, TrainingEvents, TrainingPlan
from .loop import EpochProgress
from .step import TrainState
from .stopwatch import shares_of

_REFRESH_S = 0.5  # how old the numbers of a live display may be: reading them waits for the device


class StepReporter:
    """Tells `step_finished` after every step, reading the device only now and then.

    Args:
        state: for the learning rate.
        print_freq: steps between two logged reports.
        epochs: length of the run, for the time that is left.
        events: who is told.
    """

    def __init__(
        self, state: TrainState, *, print_freq: int, epochs: int, events: TrainingEvents
    ) -> None:
        self._state = state
        self._print_freq = print_freq
        self._epochs = epochs
        self._events = events
        self._losses: dict[str, float] = {}
        self._grad_norm = math.nan
        self._read_at = -math.inf

    def __call__(self, progress: EpochProgress) -> None:
        """Report the step just done."""
        step = progress.step - 1
        is_logged = step % self._print_freq == 0 or progress.step == progress.num_steps
        now = time.perf_counter()
        is_fresh = is_logged or now - self._read_at > _REFRESH_S
        if is_fresh:
            self._losses = progress.read_last()
            if is_logged:  # all ranks come to this step; what is shown in between is this rank's
                self._losses = distributed.mean_over_ranks(self._losses)
            if progress.grad_norm is not None:
                self._grad_norm = float(progress.grad_norm)
            self._read_at = now
        timed = max(progress.timed_steps, 1)
        step_s = progress.total_s / timed
        left = (self._epochs - progress.epoch) * progress.num_steps - progress.step
        self._events.step_finished(
            StepReport(
                epoch=progress.epoch,
                step=step,
                num_steps=progress.num_steps,
                global_step=self._state.global_step,
                loss=sum(self._losses.values()) if self._losses else math.nan,
                losses=self._losses,
                lr=highest_lr(self._state),
                images_per_s=_per_second(progress),
                data_s=progress.data_s / timed,
                step_s=step_s,
                eta_s=left * step_s,
                grad_norm=self._grad_norm,
                is_fresh=is_fresh,
                is_logged=is_logged,
            )
        )


def epoch_report(
    state: TrainState,
    progress: EpochProgress,
    evaluation: Evaluation,
    best: BestSoFar,
    *,
    losses: Mapping[str, float],
    eval_s: float,
    loader: DataLoader,
    skipped_images: Sequence[str],
) -> EpochReport:
    """Describe an epoch with its evaluation."""
    timed = max(progress.timed_steps, 1)
    shares = shares_of(state.stopwatch.seconds(), eval_s)
    return EpochReport(
        epoch=progress.epoch,
        train_loss=sum(losses.values()) if losses else math.nan,
        train_losses=dict(losses),
        evaluation=evaluation,
        is_best=best.epoch == progress.epoch,
        best_epoch=best.epoch,
        best_ap=best.ap,
        lr=highest_lr(state),
        train_s=progress.total_s,
        eval_s=eval_s,
        data_s=progress.data_s / timed,
        step_s=progress.total_s / timed,
        images_per_s=_per_second(progress),
        skipped_steps=progress.skipped,
        skipped_images=skipped_images,
        time_shares=shares,
        verdict=bottleneck(
            shares,
            num_workers=loader.num_workers,
            cache=loader.dataset.cache.kind,  # type: ignore[attr-defined]
            device=state.device,
            precision=state.precision,
        ),
    )


def training_plan(
    cfg: YAMLConfig, state: TrainState, *, first_epoch: int, changes: Sequence[str]
) -> TrainingPlan:
    """Describe what is about to happen, after everything was resolved."""
    settings, loader = cfg.settings, cfg.train_dataloader
    batch = loader.epoch_sampler.total_batch_size
    size = cfg.yaml_cfg.get("eval_spatial_size")
    name = torch.cuda.get_device_name(state.device) if state.device.type == "cuda" else "CPU"
    return TrainingPlan(
        epochs=settings.epoches,
        first_epoch=first_epoch,
        steps_per_epoch=len(loader),
        batch_size=batch * settings.grad_accum_steps,
        num_train_images=len(cfg.train_dataset),
        num_val_images=len(cfg.val_dataset),
        class_names=cfg.train_dataset.categories.names,
        image_size_hw=(size[0], size[1]) if size else None,
        device=name,
        precision=str(state.precision),
        output_dir=cfg.output_dir,
        schedule=_schedule(cfg, state),
        changes=changes,
    )


def _schedule(cfg: YAMLConfig, state: TrainState) -> list[str]:
    groups = state.optimizer.param_groups
    rates = sorted({float(group.get("initial_lr", group["lr"])) for group in groups})
    scheduler = dict(cfg.yaml_cfg.get("lr_scheduler") or {})
    name = scheduler.pop("type", "constant")
    details = ", ".join(f"{key} {value}" for key, value in scheduler.items())
    lines = [
        f"learning rate {', '.join(f'{lr:g}' for lr in rates)}; {f'{name} {details}'.strip()}; "
        f"warm-up {state.warmup.warmup_duration} steps"
    ]
    if state.ema is not None:
        lines.append(f"moving average {state.ema.decay:g}, warm-up {state.ema.warmups} steps")
    transforms = cfg.train_dataset.transforms
    if transforms is not None and transforms.policy["name"] == "stop_epoch":
        stopped = ", ".join(transforms.policy.get("ops", ()))
        lines.append(f"from epoch {transforms.policy.get('epoch')} on without {stopped}")
    collate = cfg.train_dataloader.collate_fn
    if collate.scales:
        until = "" if collate.stop_epoch is None else f" until epoch {collate.stop_epoch}"
        lines.append(f"multi-scale {min(collate.scales)} to {max(collate.scales)}{until}")
    return lines


def highest_lr(state: TrainState) -> float:
    """The learning rate of the fastest group."""
    return max(float(group["lr"]) for group in state.optimizer.param_groups)


def _per_second(progress: EpochProgress) -> float:
    """Images of all ranks, which have as many as this one, or one more or less in a batch."""
    images = progress.images * distributed.world_size()
    return images / progress.total_s if progress.total_s > 0 else 0.0
