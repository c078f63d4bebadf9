"""One epoch of training, one pass of evaluation."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..data.loading.loader import DataLoader
from ..data.metrics.evaluator import CocoEvaluator, Evaluation
from ..misc import distributed
from ..misc.boxes import xyxy_to_cxcywh
from ..misc.errors import DatasetError, TrainingDiverged
from ..robustness.memory import MicroBatches, run_in_parts
from ..robustness.precision import Precision
from ..structures import Detections, Target
from .step import StepBatch, TrainState, accumulate, fall_back
from .stopping import StopFlag

_STEPS = "steps"  # among the sums of losses: how many were added up


@dataclass
class EpochProgress:
    """Running totals of an epoch. Losses stay on the device until somebody reads them."""

    epoch: int
    num_steps: int
    step: int = 0  # steps done
    images: int = 0
    data_s: float = 0.0
    total_s: float = 0.0
    timed_steps: int = 0
    skipped: int = 0
    names: list[str] = field(default_factory=list)
    last: Tensor | None = None  # [terms] of the last good step
    total: Tensor | None = None  # [terms + 1] sums over good steps, and how many these are
    before: Mapping[str, float] = field(default_factory=dict)  # `sums` of what a resumed run did
    grad_norm: Tensor | None = None

    def add(self, losses: dict[str, Tensor]) -> None:
        """Count the terms of a good step."""
        self.names = list(losses)
        self.last = torch.stack([v.detach() for v in losses.values()])
        # Steps whose loss is no number are found on the device, and do not count there.
        good = self.last.sum().isfinite()
        values = torch.where(good, self.last, 0.0)
        values = torch.cat((values, good.to(values.dtype)[None]))
        self.total = values if self.total is None else self.total.add_(values)

    def read_last(self) -> dict[str, float]:
        """Terms of the last good step; waits for the device."""
        return {} if self.last is None else dict(zip(self.names, self.last.tolist(), strict=True))

    def sums(self) -> dict[str, float]:
        """Terms added up over the epoch so far, and the number of steps; waits for the device."""
        if self.total is None:
            return dict(self.before)
        sums = dict(zip([*self.names, _STEPS], self.total.tolist(), strict=True))
        if sums.keys() != self.before.keys():  # nothing before, or losses that were others
            return sums
        return {name: value + self.before[name] for name, value in sums.items()}


def average_of(sums: Mapping[str, float]) -> dict[str, float]:
    """Loss terms of a step on average, from `EpochProgress.sums`."""
    steps = max(sums.get(_STEPS, 0), 1)
    return {name: value / steps for name, value in sums.items() if name != _STEPS}


def train_one_epoch(
    state: TrainState,
    loader: DataLoader,
    epoch: int,
    *,
    start_step: int = 0,
    loss_sums: Mapping[str, float] | None = None,
    stop: StopFlag,
    after_step: Callable[[EpochProgress], None],
) -> EpochProgress:
    """Train on every batch of an epoch that is left.

    Args:
        state: changed in place.
        loader: batches; its epoch is set here.
        epoch: 0-based.
        start_step: batches of this epoch that were trained before.
        loss_sums: `EpochProgress.sums` of those.
        stop: ends the epoch after the present optimizer step.
        after_step: called after each batch.

    Returns:
        The totals; `step` tells how far it came.

    Raises:
        TrainingDiverged: if losses or gradients are not finite too many steps in a row.
        OutOfMemory: if a step cannot be computed in smaller parts.
    """
    state.model.train()
    state.criterion.train()
    loader.set_epoch(epoch, start_step)
    progress = EpochProgress(epoch, len(loader), step=start_step, before=loss_sums or {})
    state.stopwatch.start()
    begin = time.perf_counter()
    for images, targets in loader:
        arrived = time.perf_counter()
        state.stopwatch.lap("data")
        train_step(state, loader, images, targets, progress)
        progress.step += 1
        state.global_step += 1
        progress.images += len(targets)
        progress.data_s += arrived - begin
        progress.total_s += time.perf_counter() - begin
        progress.timed_steps += 1
        after_step(progress)
        if progress.step % state.grad_accum_steps == 0 and stop.agreed():
            break  # between two optimizer steps, so that none is lost
        state.stopwatch.lap("other")
        begin = time.perf_counter()
    return progress


def train_step(
    state: TrainState,
    loader: DataLoader,
    images: Tensor,
    targets: Sequence[Target],
    progress: EpochProgress,
) -> None:
    """Forward, losses, backward; an optimizer step where enough batches were accumulated.

    Args:
        state: changed in place.
        loader: says what size the batch is resized to.
        images: [B, 3, H, W] uint8, on the host.
        targets: of each image, boxes cxcywh 0..1.
        progress: where the epoch stands; what the step gave is added.

    Raises:
        TrainingDiverged: if losses or gradients are not finite too many steps in a row.
        OutOfMemory: if the batch cannot be computed in smaller parts.
    """
    step = progress.step
    size = loader.collate_fn.size_for((images.shape[2], images.shape[3]), progress.epoch, step)
    group_end, group_size = _accumulation_group(step, progress.num_steps, state.grad_accum_steps)
    batch = StepBatch(images, targets, size, progress.epoch, step, state.global_step)
    losses = accumulate(state, batch, group_size=group_size)
    if losses:
        state.guard.passed()
        progress.add(losses)
    else:
        progress.skipped += 1
    # A step skipped on several ranks at once leaves gradients that are no numbers, on all of them.
    if step == group_end and losses is not None:
        progress.grad_norm = _optimizer_step(state)
        state.group.clear()
        try:
            state.guard.watch(progress.grad_norm)
        except TrainingDiverged as error:
            fall_back(state, error)
        state.stopwatch.lap("optimizer")


def _accumulation_group(step: int, num_steps: int, size: int) -> tuple[int, int]:
    """Last step and length of the group of batches that share an optimizer step."""
    start = step - step % size
    end = min(start + size, num_steps)
    return end - 1, end - start


def _optimizer_step(state: TrainState) -> Tensor:
    """Clip, step, follow with the average, warm up; returns the norm of the gradients."""
    state.scaler.unscale_(state.optimizer)
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, state.clip_max_norm or float("inf"))
    # The scaler leaves the step out if a gradient is not finite, without asking the device.
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    if state.ema is not None:
        state.ema.update(state.model)
    state.warmup.step()
    return norm


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    criterion: nn.Module,
    postprocessor: nn.Module,
    loader: DataLoader,
    evaluator: CocoEvaluator,
    *,
    device: torch.device,
    precision: Precision,
    stop: StopFlag | None = None,
    after_step: Callable[[int, int], None] | None = None,
) -> Evaluation | None:
    """Detect on a whole split and measure.

    Args:
        model: what to evaluate; put into evaluation mode.
        criterion: for the validation loss.
        postprocessor: predictions -> detections.
        loader: batches; boxes xyxy in pixels of the resized image.
        evaluator: collects and measures; what it held before is forgotten.
        device: where the model is.
        precision: what it computes in.
        stop: ends the pass after the present batch.
        after_step: called with (batches done, batches in all).

    Returns:
        The measurements, or None if it was stopped.

    Raises:
        DatasetError: if no image of the split can be read.
    """
    model.eval()
    criterion.eval()
    evaluator.cleanup()
    totals: dict[str, float] = {}
    num_boxes = 0
    micro_batches = MicroBatches()

    def measure(
        images: Tensor, targets: Sequence[Target]
    ) -> tuple[dict[str, float], int, dict[int, Detections]]:
        images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        with precision.autocast(device):
            outputs = model(images)
        scaled = [_scaled(t, (images.shape[2], images.shape[3])) for t in targets]
        losses = {name: float(value) for name, value in criterion(outputs, scaled).items()}
        sizes = torch.stack([t["orig_size"] for t in targets]).to(device)
        detections = postprocessor(outputs, sizes)
        ids = [int(t["image_id"]) for t in targets]
        boxes = sum(len(t["labels"]) for t in targets)
        return losses, boxes, dict(zip(ids, detections, strict=True))

    for done, (images, targets) in enumerate(loader, start=1):
        if len(targets):
            measured = run_in_parts(
                lambda images=images, targets=targets: [  # type: ignore[misc]
                    measure(images[part], targets[part])
                    for part in micro_batches.parts(len(targets))
                ],
                micro_batches,
                len(targets),
            )
            for losses, boxes, detections in measured:
                # The criterion divides by the boxes it is given; weighing by them again makes the
                # result that of the whole split at once, whatever the batch size.
                for name, value in losses.items():
                    totals[name] = totals.get(name, 0.0) + value * max(boxes, 1)
                num_boxes += boxes
                evaluator.update(detections)
        if after_step is not None:
            after_step(done, len(loader))
        if stop is not None and stop.is_set:
            break
    # Ranks may have different numbers of batches, so they agree after the last one only.
    if stop is not None and stop.agreed():
        return None
    evaluator.synchronize_between_processes()
    if not evaluator.num_images:
        raise DatasetError("no image of the validation split can be read; see the warnings above")
    evaluator.accumulate()
    evaluator.summarize()
    losses = _mean_over_ranks(totals, num_boxes)
    return dataclasses.replace(evaluator.result(), losses=losses)


def _scaled(target: Target, size_hw: tuple[int, int]) -> Target:
    """The target with boxes cxcywh 0..1 instead of xyxy pixels."""
    height, width = size_hw
    scale = torch.tensor([width, height, width, height])
    return Target(**{**target, "boxes": xyxy_to_cxcywh(target["boxes"]) / scale})


def _mean_over_ranks(totals: dict[str, float], num_boxes: int) -> dict[str, float]:
    parts = distributed.all_gather_objects((totals, num_boxes))
    boxes = max(sum(n for _, n in parts), 1)
    names = {name for part, _ in parts for name in part}
    return {n: sum(part.get(n, 0.0) for part, _ in parts) / boxes for n in sorted(names)}
