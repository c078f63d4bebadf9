"""One training step: forward pass, losses, backward pass, optimizer step."""

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..data.loading.collate import resize_batch
from ..misc import distributed
from ..misc.seeding import seed_everything
from ..structures import StepBatch, Target
from .progress import EpochProgress
from .run import TrainingRun


def train_step(
    run: TrainingRun, images: Tensor, targets: Sequence[Target], progress: EpochProgress
) -> None:
    """Accumulate the gradients of a batch; step the optimizer after the last one of a group.

    Args:
        run: changed in place.
        images: [B, 3, H, W] uint8, on the host.
        targets: one per image, boxes cxcywh 0..1.
        progress: position in the epoch; the losses are added to it.

    Raises:
        TrainingDiverged: if too many consecutive losses or gradients are non-finite.
        OutOfMemory: if the batch cannot be computed in smaller micro-batches.
    """
    size = run.train_loader.collate_fn.size_for(
        (images.shape[2], images.shape[3]), progress.epoch, progress.step
    )
    batch = StepBatch(images, targets, size, progress.epoch, progress.step, run.global_step)
    group_end, group_size = accumulation_group(
        progress.step, progress.num_steps, run.settings.grad_accum_steps
    )
    losses = run.recovery.accumulate(batch, lambda each: backward(run, each, group_size=group_size))
    if losses:
        progress.add(losses)
    else:
        progress.skipped += 1
    if progress.step == group_end and losses is not None:
        progress.grad_norm = _optimizer_step(run)
        run.recovery.finish_step(progress.grad_norm)
        run.stopwatch.lap("optimizer")


def accumulation_group(step: int, num_steps: int, size: int) -> tuple[int, int]:
    """Return the last step and the length of the group of batches that share an optimizer step."""
    start = step - step % size
    end = min(start + size, num_steps)
    return end - 1, end - start


def backward(run: TrainingRun, batch: StepBatch, *, group_size: int) -> dict[str, Tensor]:
    """Compute a batch and accumulate its gradients, micro-batch by micro-batch.

    Each micro-batch is weighted by its boxes, so that the losses add up to that of the undivided
    batch. Batch norm and denoising queries are computed per micro-batch.

    Args:
        run: the gradients of its model are changed in place.
        batch: the batch.
        group_size: batches that share an optimizer step.

    Returns:
        Loss terms of the batch, on the device.

    Raises:
        TrainingDiverged: if outputs or loss are non-finite.
    """
    # The rank is not part of the seed (decision 0006); the 0 keeps published runs reproducible.
    seed_everything(run.settings.seed, 0, batch.epoch, batch.step)
    parts = run.recovery.micro_batches.parts(len(batch.targets))
    shares = _shares_of_boxes(batch.targets, parts)
    totals: dict[str, Tensor] = {}
    for part, share in zip(parts, shares, strict=True):
        with _gradient_sync(run.model, is_last=part is parts[-1]):
            losses = _backward_part(run, batch, part, share, group_size)
        run.stopwatch.lap("backward")
        for name, value in losses.items():
            value = value.detach()
            totals[name] = totals[name] + value if name in totals else value
    return totals


def _backward_part(
    run: TrainingRun, batch: StepBatch, part: slice, share: float, group_size: int
) -> dict[str, Tensor]:
    """Compute one micro-batch; returns its weighted loss terms."""
    targets = batch.targets[part]
    images = batch.images[part].to(run.device, non_blocking=True, memory_format=torch.channels_last)
    images = resize_batch(images, batch.size_hw)
    run.stopwatch.lap("transfer")
    with run.amp.autocast():
        outputs = run.model(images, targets=targets)
    run.stopwatch.lap("forward")

    def weighted_losses() -> dict[str, Tensor]:
        place = {"epoch": batch.epoch, "step": batch.step, "global_step": batch.global_step}
        losses: dict[str, Tensor] = run.criterion(outputs, targets, **place)
        return losses if share == 1 else {name: v * share for name, v in losses.items()}

    loss, losses = run.recovery.finite_loss(batch, targets, outputs, weighted_losses)
    run.stopwatch.lap("matching")
    with distributed.collective():
        run.amp.scaler.scale(loss / group_size).backward()
    return losses


def _shares_of_boxes(targets: Sequence[Target], parts: Sequence[slice]) -> list[float]:
    """Return the weight of each micro-batch.

    The criterion divides the loss of a micro-batch by its number of boxes over all ranks, at least
    1. The weights replace this divisor by that of the batch.
    """
    if len(parts) == 1:
        return [1.0]
    counts = [sum(len(t["labels"]) for t in targets[part]) for part in parts]
    totals = distributed.sum_over_ranks(torch.tensor([*counts, sum(counts)], dtype=torch.double))
    divisors = totals.clamp(min=1).tolist()
    return [divisor / divisors[-1] for divisor in divisors[:-1]]


def _gradient_sync(model: nn.Module, *, is_last: bool) -> contextlib.AbstractContextManager[None]:
    """Let ranks average their gradients with the last micro-batch only."""
    if isinstance(model, DistributedDataParallel) and not is_last:
        context: contextlib.AbstractContextManager[None] = model.no_sync()
        return context
    return contextlib.nullcontext()


def _optimizer_step(run: TrainingRun) -> Tensor:
    """Clip, step, update the EMA, advance the warm-up; returns the gradient norm."""
    scaler, optimizer = run.amp.scaler, run.optimizer
    scaler.unscale_(optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, run.settings.clip_max_norm or float("inf"))
    # The scaler skips the step on non-finite gradients without a device synchronization.
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    if run.ema is not None:
        run.ema.update(run.model)
    run.warmup.step()
    return norm
