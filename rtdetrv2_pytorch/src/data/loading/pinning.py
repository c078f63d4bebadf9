"""Page-locked memory, from which copies to a GPU overlap with computation."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from .collate import Batch


def pin_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Copy the images of the next batch to page-locked memory while the current one is used.

    Targets are small and are concatenated before they are copied to the GPU, so they stay.
    """
    device = torch.cuda.current_device()  # new threads would use the first GPU
    with ThreadPoolExecutor(1, "pin", torch.cuda.set_device, (device,)) as thread:
        pending: Future[Batch] | None = None
        for batch in batches:
            following = thread.submit(_pin, batch)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()


def _pin(batch: Batch) -> Batch:
    images, targets = batch
    return images.pin_memory(), targets
