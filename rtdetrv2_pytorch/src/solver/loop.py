"""The training loop of an epoch and the evaluation of a split."""

import dataclasses
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..data.loading.loader import DataLoader
from ..data.metrics.evaluator import CocoEvaluator, Evaluation
from ..misc import distributed
from ..misc.boxes import xyxy_to_cxcywh
from ..misc.errors import DatasetError
from ..robustness.memory import MicroBatches
from ..robustness.precision import Precision
from ..structures import DetectionTensors, Target
from .progress import EpochProgress
from .run import TrainingRun
from .step import train_step
from .stopping import StopFlag


def train_one_epoch(
    run: TrainingRun,
    *,
    stop: StopFlag,
    after_step: Callable[[EpochProgress], None],
) -> EpochProgress:
    """Train on the remaining batches of the current epoch.

    Args:
        run: changed in place; its `epoch`, `step` and `loss_sums` are the start.
        stop: ends the epoch after the current optimizer step.
        after_step: called after each batch.

    Returns:
        The totals; `step` is the number of finished batches.

    Raises:
        TrainingDiverged: if too many consecutive losses or gradients are non-finite.
        OutOfMemory: if a batch cannot be computed in smaller micro-batches.
    """
    run.model.train()
    run.criterion.train()
    loader = run.train_loader
    loader.set_epoch(run.epoch, run.step)
    progress = EpochProgress(run.epoch, len(loader), step=run.step, before=run.loss_sums)
    run.stopwatch.start()
    begin = time.perf_counter()
    for images, targets in loader:
        arrived = time.perf_counter()
        run.stopwatch.lap("data")
        train_step(run, images, targets, progress)
        progress.step += 1
        run.global_step += 1
        progress.images += len(targets)
        progress.data_s += arrived - begin
        progress.total_s += time.perf_counter() - begin
        progress.timed_steps += 1
        after_step(progress)
        if progress.step % run.settings.grad_accum_steps == 0 and stop.agreed():
            break  # between two optimizer steps
        run.stopwatch.lap("other")
        begin = time.perf_counter()
    return progress


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
    """Run the detector on a split and compute its metrics.

    Args:
        model: the model; set to evaluation mode.
        criterion: computes the validation loss.
        postprocessor: converts outputs to detections.
        loader: batches; boxes xyxy in pixels of the resized image.
        evaluator: computes the metrics; its previous detections are removed.
        device: device of the model.
        precision: precision of the forward pass.
        stop: ends the evaluation after the current batch.
        after_step: called with the number of finished batches and of all batches.

    Returns:
        The metrics; None if the evaluation was stopped.

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
    ) -> tuple[dict[str, float], int, dict[int, DetectionTensors]]:
        images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        with precision.autocast(device):
            outputs = model(images)
        scaled = [_normalized(t, (images.shape[2], images.shape[3])) for t in targets]
        losses = {name: float(value) for name, value in criterion(outputs, scaled).items()}
        sizes = torch.stack([t["orig_size"] for t in targets]).to(device)
        detections = postprocessor(outputs, sizes)
        ids = [int(t["image_id"]) for t in targets]
        boxes = sum(len(t["labels"]) for t in targets)
        return losses, boxes, dict(zip(ids, detections, strict=True))

    for done, (images, targets) in enumerate(loader, start=1):
        if len(targets):
            for losses, boxes, detections in micro_batches.map(
                lambda part, images=images, targets=targets: measure(images[part], targets[part]),  # type: ignore[misc]
                len(targets),
            ):
                # The criterion divides by the boxes of its batch. Weighting by them gives the
                # loss of the whole split, independent of the batch size.
                for name, value in losses.items():
                    totals[name] = totals.get(name, 0.0) + value * max(boxes, 1)
                num_boxes += boxes
                evaluator.update(detections)
        if after_step is not None:
            after_step(done, len(loader))
        if stop is not None and stop.is_set:
            break
    # Ranks may have different numbers of batches, so they agree on a stop after the last one.
    if stop is not None and stop.agreed():
        return None
    evaluator.synchronize_between_processes()
    if not evaluator.num_images:
        raise DatasetError("no image of the validation split can be read; see the warnings above")
    evaluator.accumulate()
    evaluator.summarize()
    return dataclasses.replace(evaluator.result(), losses=_mean_over_ranks(totals, num_boxes))


def _normalized(target: Target, size_hw: tuple[int, int]) -> Target:
    """Convert the boxes of a target from xyxy pixels to cxcywh 0..1."""
    height, width = size_hw
    scale = torch.tensor([width, height, width, height])
    scaled = Target(**{**target, "boxes": xyxy_to_cxcywh(target["boxes"]) / scale})
    if "crowd_boxes" in target:
        scaled["crowd_boxes"] = xyxy_to_cxcywh(target["crowd_boxes"]) / scale
    return scaled


def _mean_over_ranks(totals: dict[str, float], num_boxes: int) -> dict[str, float]:
    parts = distributed.all_gather_objects((totals, num_boxes))
    boxes = max(sum(n for _, n in parts), 1)
    names = {name for part, _ in parts for name in part}
    return {n: sum(part.get(n, 0.0) for part, _ in parts) / boxes for n in sorted(names)}
