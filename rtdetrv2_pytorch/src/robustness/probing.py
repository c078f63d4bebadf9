"""Search of the micro-batch size before the first epoch."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..data.loading.collate import scale_sizes
from ..data.loading.loader import DataLoader
from ..misc import distributed
from ..misc.errors import TrainingDiverged
from ..misc.text import counted
from ..structures import StepBatch, Target
from .memory import MicroBatches, free_memory
from .recovery import Recovery

logger = logging.getLogger(__name__)


def find_micro_batch(
    model: nn.Module,
    recovery: Recovery,
    loader: DataLoader,
    backward: Callable[[StepBatch], Any],
    *,
    start: int | None = None,
) -> int | None:
    """Find how many images fit in memory at the largest size with the most boxes.

    The probe holds gradients, two optimizer moments and a second micro-batch, as training does. It
    leaves weights, statistics and random numbers of the run unchanged. All ranks use the smallest
    result.

    Args:
        model: the model, not wrapped for several ranks.
        recovery: of the probe; see `Recovery.for_probe`.
        loader: training data.
        backward: computes the gradients of a batch.
        start: micro-batch size to start from; None: the whole batch.

    Returns:
        Images per micro-batch; None if the whole batch fits.

    Raises:
        OutOfMemory: if a single image does not fit.
    """
    batch = worst_batch(loader)
    num_images = len(batch.targets)
    found = MicroBatches(start)
    model.train()
    for module in model.modules():  # torch's SyncBatchNorm waits for the other ranks in training
        if isinstance(module, nn.SyncBatchNorm):
            module.eval()
    trained = [p for p in model.parameters() if p.requires_grad]
    is_new = not recovery.optimizer.state
    moments = [torch.zeros_like(p) for p in trained for _ in range(2) if is_new]

    def compute() -> None:
        part = found.parts(num_images)[0]
        images = dataclasses.replace(batch, images=batch.images[part], targets=batch.targets[part])
        for _ in range(2):  # the second time with gradients in place
            backward(images)

    recovery.guard.save_buffers()
    try:
        # Each rank probes independently. A non-finite loss is ignored: the memory was allocated.
        with distributed.single_process(), contextlib.suppress(TrainingDiverged):
            found.retry(compute, num_images, undo=recovery.discard_gradients)
    finally:
        recovery.discard_gradients()
        del moments
        free_memory()
    smallest = min(distributed.all_gather_objects(min(found.size or num_images, num_images)))
    logger.info(
        "largest batch: %s at %dx%d with %s each; micro-batches of %d fit in memory",
        counted(num_images, "image"),
        *batch.size_hw,
        counted(len(batch.targets[0]["labels"]), "box"),
        smallest,
    )
    return smallest if smallest < num_images else None


def worst_batch(loader: DataLoader) -> StepBatch:
    """Return black images of the largest training size, each with the most boxes of any image."""
    images, targets = loader.collate_fn([loader.dataset[0]])
    base = (images.shape[2], images.shape[3])
    scales = loader.collate_fn.scales
    sizes = scale_sizes(scales, base) if scales else [base]
    num_boxes = int(loader.dataset.annotations.boxes_per_image().max())  # type: ignore[attr-defined]
    boxes = torch.rand(num_boxes, 4, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    labels = torch.zeros(num_boxes, dtype=torch.int64)
    target = Target(**{**targets[0], "boxes": boxes, "labels": labels})
    num_images = loader.epoch_sampler.batch_size
    return StepBatch(
        images=images.new_zeros(num_images, *images.shape[1:]),
        targets=[target] * num_images,
        size_hw=max(sizes, key=lambda size: size[0] * size[1]),
        epoch=0,
        step=0,
        global_step=0,
    )
