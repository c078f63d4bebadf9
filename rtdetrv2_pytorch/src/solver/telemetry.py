"""Reports for `TrainingEvents`, computed from the running totals of a training."""

import math
import time
from collections.abc import Mapping, Sequence

import torch

from ..data.loading.repeats import class_factors, image_fractions
from ..data.metrics.detection_limit import limit_notes
from ..data.metrics.evaluator import Evaluation
from ..misc import distributed
from ..misc.text import counted
from .bottleneck import bottleneck
from .events import EpochReport, StepReport, TrainingEvents, TrainingPlan
from .network import detections_per_image
from .progress import EpochProgress
from .run import TrainingRun
from .stopwatch import shares_of

_EVALUATION_COST = 1 / 3  # of an image, relative to training on it, before it is measured
_REFRESH_S = 0.5  # maximum age of displayed losses: reading them waits for the device


class StepReporter:
    """Sends `step_finished` after every step, and reads the losses only every `_REFRESH_S`.

    Args:
        run: the run.
        events: receiver of the reports.
    """

    def __init__(self, run: TrainingRun, events: TrainingEvents) -> None:
        self._run = run
        self._events = events
        self._losses: dict[str, float] = {}
        self._grad_norm = math.nan
        self._read_at = -math.inf

    def __call__(self, progress: EpochProgress) -> None:
        """Report the finished step."""
        step = progress.step - 1
        is_logged = step % self._run.settings.print_freq == 0 or progress.step == progress.num_steps
        now = time.perf_counter()
        is_fresh = is_logged or now - self._read_at > _REFRESH_S
        if is_fresh:
            self._losses = progress.read_last()
            if is_logged:  # all ranks log the same steps; other reports show the main rank only
                self._losses = distributed.mean_over_ranks(self._losses)
            if progress.grad_norm is not None:
                self._grad_norm = float(progress.grad_norm)
            self._read_at = now
        data_s, step_s = _means(progress)
        self._events.step_finished(
            StepReport(
                epoch=progress.epoch,
                step=step,
                num_steps=progress.num_steps,
                global_step=self._run.global_step,
                loss=sum(self._losses.values()) if self._losses else math.nan,
                losses=self._losses,
                lr=self._run.highest_lr,
                images_per_s=_images_per_second(progress),
                data_s=data_s,
                step_s=step_s,
                eta_s=_remaining_s(self._run, progress),
                grad_norm=self._grad_norm,
                is_fresh=is_fresh,
                is_logged=is_logged,
            )
        )


def epoch_report(
    run: TrainingRun,
    progress: EpochProgress,
    evaluation: Evaluation | None,
    *,
    losses: Mapping[str, float],
    eval_s: float,
    skipped_images: Sequence[str],
) -> EpochReport:
    """Return the report of a finished epoch, with its evaluation if it had one."""
    data_s, step_s = _means(progress)
    shares = shares_of(run.stopwatch.seconds(), eval_s)
    loader = run.train_loader
    return EpochReport(
        epoch=progress.epoch,
        train_loss=sum(losses.values()) if losses else math.nan,
        train_losses=dict(losses),
        evaluation=evaluation,
        is_best=run.best.epoch == progress.epoch,
        best_epoch=run.best.epoch,
        best_ap=run.best.ap,
        lr=run.highest_lr,
        train_s=progress.total_s,
        eval_s=eval_s,
        eta_s=_remaining_s(run, EpochProgress(run.epoch, progress.num_steps)),
        data_s=data_s,
        step_s=step_s,
        images_per_s=_images_per_second(progress),
        skipped_steps=progress.skipped,
        skipped_images=skipped_images,
        time_shares=shares,
        bottleneck=bottleneck(
            shares,
            num_workers=loader.num_workers,
            cache=loader.dataset.cache.kind,  # type: ignore[attr-defined]
            device=run.device,
            precision=run.amp.precision,
        ),
    )


def training_plan(run: TrainingRun, *, changes: Sequence[str]) -> TrainingPlan:
    """Return the plan of the run after all settings are resolved."""
    cfg, settings, loader = run.cfg, run.settings, run.train_loader
    size = cfg.yaml_cfg.get("eval_spatial_size")
    name = torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else "CPU"
    return TrainingPlan(
        epochs=settings.epoches,
        first_epoch=run.epoch,
        steps_per_epoch=len(loader),
        batch_size=loader.epoch_sampler.total_batch_size * settings.grad_accum_steps,
        num_train_images=len(cfg.train_dataset),
        num_val_images=len(cfg.val_dataset),
        class_names=cfg.train_dataset.categories.names,
        image_size_hw=(size[0], size[1]) if size else None,
        device=name,
        precision=str(run.amp.precision),
        output_dir=cfg.output_dir,
        schedule=_schedule(run),
        changes=changes,
    )


def _schedule(run: TrainingRun) -> list[str]:
    rates = sorted({float(g.get("initial_lr", g["lr"])) for g in run.optimizer.param_groups})
    scheduler = dict(run.cfg.yaml_cfg.get("lr_scheduler") or {})
    name = scheduler.pop("type", "constant")
    details = ", ".join(f"{key} {value}" for key, value in scheduler.items())
    lines = [
        f"learning rate {', '.join(f'{lr:g}' for lr in rates)}; {f'{name} {details}'.strip()}; "
        f"warm-up {counted(run.warmup.warmup_duration, 'step')}"
    ]
    if run.ema is not None:
        lines.append(f"EMA decay {run.ema.decay:g}, warm-up {counted(run.ema.warmups, 'step')}")
    transforms = run.cfg.train_dataset.transforms
    if transforms is not None:
        first, stopped = transforms.policy.get("epoch"), transforms.policy.get("ops", ())
        if first is not None and stopped:
            lines.append(f"{', '.join(stopped)} disabled from epoch {first + 1}")
        lines += [
            f"{name} in epochs {begin + 1} to {end}"
            for name, (begin, end) in transforms.policy.get("active", {}).items()
        ]
    lines += _repeats(run)
    if run.settings.eval_freq > 1:
        lines.append(
            f"evaluation every {counted(run.settings.eval_freq, 'epoch')} and after the last one"
        )
    annotations = run.cfg.val_dataset.annotations
    lines += limit_notes(annotations, detections_per_image(run.cfg))
    collate = run.train_loader.collate_fn
    if collate.scales:
        until = "" if collate.stop_epoch is None else f" until epoch {collate.stop_epoch}"
        lines.append(f"multi-scale {min(collate.scales)} to {max(collate.scales)}{until}")
    return lines


def _repeats(run: TrainingRun) -> list[str]:
    """Describe how often the images of the rarest class are repeated."""
    sampler, threshold = run.train_loader.epoch_sampler, run.settings.repeat_threshold
    if sampler.repeated is None:
        return []
    annotations = run.cfg.train_dataset.annotations
    factors = class_factors(image_fractions(annotations), threshold)
    rarest = int(factors.argmax())
    return [
        f"{counted(sampler.num_images, 'image')} per epoch instead of {len(annotations)}: those of "
        f"classes in fewer than {threshold:g} of the images are repeated, those of "
        f"{annotations.categories.names[rarest]} {factors[rarest]:.1f} times"
    ]


def _means(progress: EpochProgress) -> tuple[float, float]:
    """Return the mean seconds per step for loading and for the whole step."""
    steps = max(progress.timed_steps, 1)
    return progress.data_s / steps, progress.total_s / steps


def _remaining_s(run: TrainingRun, progress: EpochProgress) -> float:
    """Estimate the time to the end of the run from all its steps and evaluations so far.

    Includes the remaining evaluations, and that of best.pth at the end.
    """
    pace, steps = run.pace, progress.num_steps
    epochs = run.settings.epoches - progress.epoch
    step_s = (pace.train_s + progress.total_s) / max(pace.steps + progress.timed_steps, 1)
    if pace.evaluations:
        eval_s = pace.eval_s / pace.evaluations
    else:
        images = len(run.cfg.val_dataset) / len(run.cfg.train_dataset)
        eval_s = _EVALUATION_COST * images * steps * step_s
    evaluations = sum(map(run.is_evaluated, range(progress.epoch, run.settings.epoches))) + 1
    seconds = (epochs * steps - progress.step) * step_s + evaluations * eval_s
    return seconds if run.budget is None else min(seconds, max(0.0, run.budget.left_s()))


def _images_per_second(progress: EpochProgress) -> float:
    """Return the speed over all ranks, which have at most one image more or less per batch."""
    images = progress.images * distributed.world_size()
    return images / progress.total_s if progress.total_s > 0 else 0.0
