"""One training step and its retries: with fewer images at once, or with more exact numbers."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ..data.loading.collate import resize_batch
from ..misc import distributed
from ..misc.errors import TrainingDiverged
from ..misc.seeding import seed_everything
from ..optim.ema import ModelEMA
from ..optim.warmup import LinearWarmup
from ..robustness.guard import FiniteGuard
from ..robustness.memory import MicroBatches, run_in_parts
from ..robustness.precision import Precision
from ..structures import Target
from .bad_batches import BadBatches
from .stopwatch import Stopwatch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepBatch:
    """A batch as it was loaded, and its place: all that is needed to compute it again."""

    images: Tensor  # [B, 3, H, W] uint8, on the host
    targets: Sequence[Target]
    size_hw: tuple[int, int]  # to be resized to
    epoch: int
    step: int
    global_step: int


@dataclass
class TrainState:
    """Everything that changes while training, and what changes it."""

    model: nn.Module
    criterion: nn.Module
    optimizer: Optimizer
    scaler: GradScaler
    warmup: LinearWarmup
    ema: ModelEMA | None
    guard: FiniteGuard
    device: torch.device
    precision: Precision
    seed: int
    clip_max_norm: float  # 0: gradients are not clipped
    grad_accum_steps: int
    micro_batches: MicroBatches
    bad_batches: BadBatches | None  # None: they are not described
    stopwatch: Stopwatch
    global_step: int = 0
    has_fallen_back: bool = False  # to another precision than was asked for
    group: list[StepBatch] = field(default_factory=list)  # since the last optimizer step


class NonFiniteLoss(TrainingDiverged):
    """The loss of a batch is no finite number.

    Args:
        message: for people.
        losses: the terms.
    """

    def __init__(self, message: str, losses: Mapping[str, float]) -> None:
        super().__init__(message)
        self.losses = losses


def accumulate(state: TrainState, batch: StepBatch, *, group_size: int) -> dict[str, Tensor] | None:
    """Add the gradients of a batch to those of its group.

    Where memory does not suffice, the gradients of the whole group are computed again, in smaller
    parts and with the same random numbers. Where numbers are not finite, nothing of the group is
    left behind; if that goes on, with more exact numbers.

    Args:
        state: changed in place.
        batch: what to compute.
        group_size: batches of the group.

    Returns:
        The loss terms, or None if the step was skipped; none if all ranks have to skip it.

    Raises:
        OutOfMemory: if it cannot be computed in smaller parts.
        TrainingDiverged: if numbers are not finite again and again, in float32, too.
    """
    if not state.group:
        state.guard.remember()
    state.group.append(batch)
    pending = [batch]

    def compute() -> dict[str, Tensor]:
        for one in pending:
            losses = backward(state, one, group_size=group_size)
        return losses

    def undo() -> None:
        drop_group(state, keep_batches=True)
        pending[:] = state.group

    try:
        return run_in_parts(compute, state.micro_batches, len(batch.targets), undo=undo)
    except TrainingDiverged as error:
        _describe_bad_batch(state, batch, error)
        drop_group(state)
        try:
            state.guard.skip(error)
        except TrainingDiverged as final:
            fall_back(state, final)
        return None


def drop_group(state: TrainState, *, keep_batches: bool = False) -> None:
    """Undo what the batches since the last optimizer step have done."""
    state.optimizer.zero_grad(set_to_none=True)
    state.guard.restore()
    if not keep_batches:
        state.group.clear()


def fall_back(state: TrainState, error: TrainingDiverged) -> None:
    """Go on with more exact numbers.

    Raises:
        TrainingDiverged: `error`, if there are none.
    """
    better = state.precision.more_exact(state.device)
    if better is None:
        raise error
    logger.warning("%s; going on in %s instead of %s", error, better, state.precision)
    use_precision(state, better)


def use_precision(state: TrainState, precision: Precision) -> None:
    """Compute in another precision than the configured one, from now on."""
    state.precision = precision
    state.has_fallen_back = True
    state.scaler = plain_scaler(state.device)
    state.guard.start_anew()


def plain_scaler(device: torch.device) -> GradScaler:
    """A scaler that scales by 1.

    Even that one is of use: it is torch's way to leave out an optimizer step whose gradients are
    not finite without asking the device.
    """
    return GradScaler(device.type, init_scale=1.0, growth_interval=2**31 - 1)


def backward(state: TrainState, batch: StepBatch, *, group_size: int) -> dict[str, Tensor]:
    """Compute a batch, in parts if need be, and add up its gradients.

    The parts together have the loss of the undivided batch: each is weighed with its boxes. Batch
    norm sees the parts, and the denoising queries of each are drawn for itself.

    Returns:
        Loss terms of the batch, on the device; none if several ranks have to skip the step.

    Raises:
        TrainingDiverged: if outputs or loss are not finite, naming the images; not with several
            ranks, where the others wait: there the gradients of all become NaN.
    """
    # All ranks draw alike: for the images of all of them. (The 0 was a rank's place; see 0006.)
    seed_everything(state.seed, 0, batch.epoch, batch.step)
    parts = state.micro_batches.parts(len(batch.targets))
    shares = _shares_of_boxes(batch.targets, parts)
    totals: dict[str, Tensor] = {}
    is_spoiled = False
    for part, share in zip(parts, shares, strict=True):
        targets = batch.targets[part]
        with _gradients_shared(state.model, is_last=part is parts[-1]):
            images = batch.images[part].to(
                state.device, non_blocking=True, memory_format=torch.channels_last
            )
            images = resize_batch(images, batch.size_hw)
            state.stopwatch.lap("transfer")
            with state.precision.autocast(state.device):
                outputs = state.model(images, targets=targets)
            state.stopwatch.lap("forward")
            try:
                loss, losses = _losses_of(state, outputs, batch, targets, share)
            except TrainingDiverged as error:
                if not distributed.is_distributed():
                    raise
                _describe_bad_batch(state, batch, error)
                logger.warning("step skipped on all ranks: %s", error)
                loss, losses = _no_number(outputs), {}
                is_spoiled = True
            state.stopwatch.lap("matching")
            with distributed.meeting():
                state.scaler.scale(loss / group_size).backward()
        state.stopwatch.lap("backward")
        for name, value in losses.items():
            value = value.detach()
            totals[name] = totals[name] + value if name in totals else value
    if is_spoiled:
        state.guard.restore()  # not before: the backward pass needs the statistics as they were
        return {}
    return totals


def _shares_of_boxes(targets: Sequence[Target], parts: Sequence[slice]) -> list[float]:
    """What each part's loss weighs: the criterion divides by the boxes of what it is given.

    It divides by the boxes of all ranks, and by no less than 1.
    """
    if len(parts) == 1:
        return [1.0]
    counts = [sum(len(t["labels"]) for t in targets[part]) for part in parts]
    totals = distributed.sum_over_ranks(torch.tensor([*counts, sum(counts)], dtype=torch.double))
    divisors = totals.clamp(min=1).tolist()
    return [divisor / divisors[-1] for divisor in divisors[:-1]]


def _gradients_shared(
    model: nn.Module, *, is_last: bool
) -> contextlib.AbstractContextManager[None]:
    """Ranks average their gradients once a batch, with its last part."""
    if isinstance(model, DistributedDataParallel) and not is_last:
        context: contextlib.AbstractContextManager[None] = model.no_sync()
        return context
    return contextlib.nullcontext()


def _losses_of(
    state: TrainState,
    outputs: Mapping[str, Any],
    batch: StepBatch,
    targets: Sequence[Target],
    share: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a part of a batch and its terms, weighed with the part's share.

    Raises:
        TrainingDiverged: if outputs or loss are not finite.
    """
    losses: dict[str, Tensor] = state.criterion(
        outputs, targets, epoch=batch.epoch, step=batch.step, global_step=batch.global_step
    )
    if share != 1:
        losses = {name: value * share for name, value in losses.items()}
    loss: Tensor = sum(losses.values())  # type: ignore[assignment]
    _refuse_non_finite(loss, losses, batch, targets)
    return loss, losses


def _refuse_non_finite(
    loss: Tensor, losses: Mapping[str, Tensor], batch: StepBatch, targets: Sequence[Target]
) -> None:
    """On a GPU the host would wait for it: there the guard finds out, by the gradients."""
    if loss.device.type != "cpu" or bool(loss.isfinite()):
        return
    terms = {name: float(value.detach()) for name, value in losses.items()}
    ids = [int(t["image_id"]) for t in targets]
    raise NonFiniteLoss(
        f"epoch {batch.epoch}, step {batch.global_step}: the loss is not finite for images with "
        f"ids {ids}; look at these images and their boxes, lower the learning rate, or train "
        "without mixed precision",
        terms,
    )


def _describe_bad_batch(state: TrainState, batch: StepBatch, error: TrainingDiverged) -> None:
    if state.bad_batches is not None:
        state.bad_batches.write(
            error,
            batch.targets,
            losses=getattr(error, "losses", {}),
            epoch=batch.epoch,
            step=batch.step,
            global_step=batch.global_step,
            precision=str(state.precision),
            size_hw=list(batch.size_hw),
        )


def _no_number(outputs: Mapping[str, Any]) -> Tensor:
    """A loss that makes the gradients of all that led to the outputs NaN."""
    sums = [t.float().sum() for t in _tensors(outputs)]
    return torch.stack(sums).sum() * torch.nan


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors with gradients in nested outputs."""
    if isinstance(value, Tensor):
        if value.requires_grad:
            yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
