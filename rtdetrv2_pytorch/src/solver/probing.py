"""Before the first epoch: does the worst batch that can come fit into memory?"""

import contextlib
import dataclasses
import logging

import torch
from torch import nn

from ..data.loading.collate import scale_sizes
from ..data.loading.loader import DataLoader
from ..misc import distributed
from ..misc.errors import TrainingDiverged
from ..optim.ema import unwrap
from ..robustness.memory import MicroBatches, free_memory, run_in_parts
from ..structures import Target
from .step import StepBatch, TrainState, backward, drop_group

logger = logging.getLogger(__name__)


def find_micro_batch(state: TrainState, loader: DataLoader) -> None:
    """Find how many images fit at the largest size, each with the most boxes of the data set.

    Gradients, the optimizer's two moments and the images of a second part are there while it is
    tried, as they will be in training. Nothing of it is left: weights, statistics and random
    numbers of the run are those of one that was not probed. All ranks take the smallest number.

    Args:
        state: its `micro_batches` are set.
        loader: of the training data.

    Raises:
        OutOfMemory: if a single image does not fit.
    """
    batch = worst_batch(loader)
    num_images = len(batch.targets)
    found = MicroBatches(state.micro_batches.size)
    alone = dataclasses.replace(
        state, model=unwrap(state.model), micro_batches=MicroBatches(), bad_batches=None, group=[]
    )
    alone.model.train()
    for module in alone.model.modules():  # torch's own asks its group, not us
        if isinstance(module, nn.SyncBatchNorm):
            module.eval()
    trained = [p for p in alone.model.parameters() if p.requires_grad]
    is_new = not state.optimizer.state
    moments = [torch.zeros_like(p) for p in trained for _ in range(2) if is_new]

    def compute() -> None:
        part = found.parts(num_images)[0]
        images = dataclasses.replace(batch, images=batch.images[part], targets=batch.targets[part])
        for _ in range(2):  # the second time with gradients in place
            backward(alone, images, group_size=1)

    state.guard.remember()
    try:
        # Each rank finds its own number, in as many attempts. What is not finite had its memory,
        # and is dealt with when it comes in training.
        with distributed.alone(), contextlib.suppress(TrainingDiverged):
            run_in_parts(compute, found, num_images, undo=lambda: drop_group(alone))
    finally:
        drop_group(alone)
        del moments
        free_memory()
    sizes = distributed.all_gather_objects(min(found.size or num_images, num_images))
    smallest = min(sizes)
    state.micro_batches.size = smallest if smallest < num_images else None
    logger.info(
        "the largest batch, %d images at %dx%d with %d boxes each: %d at a time fit",
        num_images,
        *batch.size_hw,
        len(batch.targets[0]["labels"]),
        smallest,
    )


def worst_batch(loader: DataLoader) -> StepBatch:
    """Black images of the largest size that training can choose, with the most boxes each."""
    images, targets = loader.collate_fn([loader.dataset[0]])
    base = (images.shape[2], images.shape[3])
    scales = loader.collate_fn.scales
    sizes = scale_sizes(scales, base) if scales else [base]
    num_boxes = int(loader.dataset.annotations.boxes_per_image().max())  # type: ignore[attr-defined]
    target = Target(
        **{
            **targets[0],
            "boxes": torch.rand(num_boxes, 4, generator=torch.Generator().manual_seed(0)) * 0.5
            + 0.25,
            "labels": torch.zeros(num_boxes, dtype=torch.int64),
        }
    )
    num_images = loader.epoch_sampler.batch_size
    return StepBatch(
        images=images.new_zeros(num_images, *images.shape[1:]),
        targets=[target] * num_images,
        size_hw=max(sizes, key=lambda size: size[0] * size[1]),
        epoch=0,
        step=0,
        global_step=0,
    )
