"""Before the first step: network, weights, average, optimizer, and the state of a resumed run."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel

from ..core.yaml_config import YAMLConfig
from ..misc import distributed
from ..misc.devices import check_compiler
from ..misc.errors import CheckpointError
from ..misc.resources import keep_freed_memory
from ..misc.weights import load_checkpoint, load_matching, load_strict, model_state
from ..nn.sync_batch_norm import synchronize_batch_norm
from ..optim.factories import resume_schedule
from ..optim.warmup import LinearWarmup
from ..robustness.guard import FiniteGuard
from ..robustness.memory import MicroBatches
from ..robustness.precision import Precision, resolve_precision
from .bad_batches import BadBatches
from .best import BestSoFar
from .step import TrainState, plain_scaler, use_precision
from .stopwatch import Stopwatch

logger = logging.getLogger(__name__)


@dataclass
class Position:
    """Where a run stands: the epoch and the batch that come next, and the best so far."""

    epoch: int = 0
    step: int = 0
    best: BestSoFar = field(default_factory=BestSoFar)
    loss_sums: dict[str, float] = field(default_factory=dict)  # of this epoch's batches before


def set_up(cfg: YAMLConfig) -> tuple[TrainState, Position]:
    """Build everything that trains, in an order in which each part depends on those before.

    The weights come before the data-parallel wrapper, which sends them to all ranks, and before
    the moving average, which starts as a copy of them.

    Raises:
        CheckpointError: if weights cannot be loaded.
        ConfigError: if it is to be compiled and cannot.
    """
    settings = cfg.settings
    if cfg.device.type == "cpu":
        keep_freed_memory()
    resumed = load_checkpoint(settings.resume) if settings.resume else None
    if resumed is not None:
        load_strict(cfg.model, _raw_weights(resumed), source=str(settings.resume))
    elif settings.tuning:
        tune_from(cfg, settings.tuning)
    elif settings.last_epoch >= 0:
        logger.warning("last_epoch = %d without resume: weights start anew", settings.last_epoch)
    cfg.model.to(device=cfg.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = _data_parallel(cfg)
    if settings.compile:
        check_compiler(cfg.device)
        _compile(cfg.model)
    if cfg.ema is not None:
        cfg.ema.module.to(cfg.device)  # it may have been made before the device was known

    precision = run_precision(cfg)
    uses_loss_scale = precision.dtype == torch.float16
    state = TrainState(
        model=model,
        criterion=cfg.criterion.to(cfg.device),
        ema=cfg.ema,
        optimizer=cfg.optimizer,
        scaler=(cfg.scaler or GradScaler(cfg.device.type))
        if uses_loss_scale
        else plain_scaler(cfg.device),
        warmup=cfg.lr_warmup_scheduler or LinearWarmup(cfg.lr_scheduler, warmup_duration=0),
        guard=FiniteGuard(
            cfg.model,
            max_skipped_steps=settings.max_skipped_steps,
            uses_loss_scale=uses_loss_scale,
        ),
        device=cfg.device,
        precision=precision,
        seed=settings.seed,
        clip_max_norm=settings.clip_max_norm,
        grad_accum_steps=settings.grad_accum_steps,
        micro_batches=MicroBatches(
            None if settings.micro_batch_size == "auto" else settings.micro_batch_size,
            is_fixed=distributed.is_distributed(),
        ),
        bad_batches=BadBatches(cfg.output_dir, cfg.train_dataset),
        stopwatch=Stopwatch(cfg.device),
    )
    position = Position(epoch=settings.last_epoch + 1)
    if resumed is not None:
        position = _go_on(cfg, state, resumed)
    return state, position


def run_precision(cfg: YAMLConfig) -> Precision:
    """The number type of this run on this device."""
    settings = cfg.settings
    return resolve_precision(
        use_amp=settings.use_amp, amp_dtype=settings.amp_dtype, device=cfg.device
    )


def tune_from(cfg: YAMLConfig, source: str) -> None:
    """Load whatever fits of a checkpoint into the model, and say what did.

    Raises:
        CheckpointError: if nothing fits.
    """
    checkpoint = load_checkpoint(source)
    decoder = getattr(cfg.model, "decoder", None)
    report = load_matching(
        cfg.model,
        model_state(checkpoint),
        class_keys=[f"decoder.{key}" for key in getattr(decoder, "class_keys", [])],
        model_classes=cfg.class_names,
        state_classes=checkpoint.get("class_names"),
    )
    if not report.loaded:
        raise CheckpointError(f"{source}: nothing of it fits this model; is it of another size?")
    logger.info("tuning from %s: %s", source, report)


def _raw_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights that were trained, not their average."""
    return model_state(
        {"model": checkpoint.get("model")} if checkpoint.get("model") else checkpoint
    )


def _data_parallel(cfg: YAMLConfig) -> nn.Module:
    if not distributed.is_distributed():
        return cfg.model
    if cfg.settings.sync_bn:
        cfg.model = synchronize_batch_norm(cfg.model, cfg.device)
    return DistributedDataParallel(
        cfg.model,
        device_ids=[cfg.device] if cfg.device.type == "cuda" else None,
        broadcast_buffers=False,  # equal with `sync_bn`; without, shared once an epoch
        find_unused_parameters=cfg.settings.find_unused_parameters,
    )


def _compile(model: nn.Module) -> None:
    """Compile the parts whose shapes depend on nothing but the size of the images.

    In place: names of weights stay, and copies of the model are not compiled. Sizes are dynamic,
    because multi-scale training has a dozen of them.
    """
    for name in ("backbone", "encoder"):
        part = getattr(model, name, None)
        if isinstance(part, nn.Module):
            part.compile(dynamic=True)


def _load_optimizer(cfg: YAMLConfig, state: TrainState, checkpoint: Mapping[str, Any]) -> None:
    """Optimizer, schedule, warm-up and scaler of a resumed run."""
    saved, own = checkpoint["optimizer"]["param_groups"], state.optimizer.param_groups
    theirs, ours = ([len(group["params"]) for group in groups] for groups in (saved, own))
    # Adam and its kin have betas, SGD has momentum.
    if theirs != ours or ["betas" in g for g in saved] != ["betas" in g for g in own]:
        raise CheckpointError(
            f"{cfg.settings.resume}: its optimizer is of another type, or its groups of {theirs} "
            f"parameters are not those of {ours} here; leave 'optimizer' as it was, or start a "
            "new run from these weights with tuning"
        )
    state.optimizer.load_state_dict(checkpoint["optimizer"])
    rates = None
    if checkpoint.get("lr_scheduler"):
        rates = resume_schedule(cfg.lr_scheduler, checkpoint["lr_scheduler"])
    if checkpoint.get("lr_warmup_scheduler"):
        state.warmup.load_state_dict(checkpoint["lr_warmup_scheduler"])
    scaler = checkpoint.get("scaler") or {}
    # Only where it grows alike: the scale of 1 of other precisions, which never grows, would let
    # gradients of float16 vanish, and theirs needs no scale.
    if scaler.get("growth_interval") == state.scaler.get_growth_interval():
        state.scaler.load_state_dict(scaler)
    if rates is not None:
        logger.info("the schedule is not the resumed run's: learning rates %s", rates)
        state.warmup.follow(rates)


def _step_of(cfg: YAMLConfig, progress: Mapping[str, Any]) -> int:
    """The batch that comes next; where batches were of another size, after as many images."""
    step, size = int(progress.get("step", 0)), cfg.train_dataloader.epoch_sampler.total_batch_size
    was = int(progress.get("batch_size") or size)
    if was == size:
        return step
    if step:
        logger.warning("a batch has %d images, in the resumed run it had %d", size, was)
    step = step * was // size
    return step - step % cfg.settings.grad_accum_steps


def _go_on(cfg: YAMLConfig, state: TrainState, checkpoint: Mapping[str, Any]) -> Position:
    """Take over the state of a run from its checkpoint, beside the weights."""
    source = cfg.settings.resume
    if not checkpoint.get("optimizer"):
        raise CheckpointError(
            f"{source}: holds weights but no optimizer, so its run cannot go on; resume from "
            "last.pth, or start a new run from these weights with tuning"
        )
    average = checkpoint.get("ema")
    if state.ema is not None and isinstance(average, Mapping):
        load_strict(state.ema.module, average["module"], source=f"{source} (ema)")
        state.ema.updates = int(average["updates"])
    elif state.ema is not None:
        logger.warning("%s holds no moving average; it starts from the weights", source)
    # Files of other programs know the last finished epoch only.
    progress = checkpoint.get("progress") or {"epoch": int(checkpoint.get("last_epoch", -1)) + 1}
    if progress.get("fallback") and state.precision.is_mixed:  # else less exact than asked for now
        use_precision(state, Precision(getattr(torch, progress["fallback"])))
    if cfg.settings.micro_batch_size == "auto" and progress.get("micro_batch"):
        state.micro_batches.size = int(progress["micro_batch"])
    _load_optimizer(cfg, state, checkpoint)

    position = Position(
        epoch=int(progress["epoch"]),
        step=_step_of(cfg, progress),
        loss_sums=dict(progress.get("loss_sums") or {}),
    )
    if "best" in progress:
        position.best.load_state_dict(progress["best"])
    steps = position.epoch * len(cfg.train_dataloader) + position.step
    state.global_step = int(progress.get("global_step", steps))
    if progress.get("seed", state.seed) != state.seed:
        logger.warning(
            "seed = %d, but the resumed run has seed %d: the order of images changes",
            state.seed,
            progress["seed"],
        )
    logger.info("resuming %s: epoch=%d step=%d", source, position.epoch, position.step)
    return position
