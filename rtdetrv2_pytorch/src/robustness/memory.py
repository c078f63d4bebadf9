"""Batches that do not fit into memory are computed in parts."""

import gc
import logging
import math
from collections.abc import Callable
from typing import TypeVar

import torch

from ..misc import distributed
from ..misc.errors import OutOfMemory
from ..misc.text import first_line

logger = logging.getLogger(__name__)

T = TypeVar("T")

# What the allocators of torch, CUDA's libraries and the host say; not all have a type of their own.
_MESSAGES = ("out of memory", "alloc_failed", "can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory was too small."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(text in message for text in _MESSAGES)


class MicroBatches:
    """How many images are computed at once; fewer from the moment on that they do not fit.

    Args:
        size: images at once; None: whole batches.
        is_fixed: never fewer, because other ranks would wait for what this one repeats. They
            agree on the number of parts instead, as they meet in each.
    """

    def __init__(self, size: int | None = None, *, is_fixed: bool = False) -> None:
        self.size = size
        self.is_fixed = is_fixed

    def parts(self, num_images: int) -> list[slice]:
        """Divide a batch into parts of at most `size` images, as equal as possible."""
        sizes = [num_images]
        if self.size and self.is_fixed:
            sizes = [size for (size,) in distributed.gather_numbers(num_images)]
        count = min(math.ceil(max(sizes) / (self.size or max(sizes))), *sizes)
        ends = [num_images * i // count for i in range(count + 1)]
        return [slice(start, end) for start, end in zip(ends[:-1], ends[1:], strict=True)]

    def shrink(self, num_images: int, reason: str) -> None:
        """Compute half as many images at once.

        Args:
            num_images: of the batch that did not fit.
            reason: what the allocator said.

        Raises:
            OutOfMemory: if a single image does not fit, or the size is fixed.
        """
        tried = min(self.size or num_images, num_images)
        if tried == 1:
            raise OutOfMemory(
                f"a single image does not fit into memory ({reason}); choose a smaller "
                "eval_spatial_size, smaller collate_fn.scales or a smaller model, set use_amp, "
                "or end other programs that use this device"
            )
        if self.is_fixed:
            raise OutOfMemory(
                f"{tried} images at once do not fit into memory ({reason}), and other ranks wait "
                f"for this one; go on from last.pth with micro_batch_size = {tried // 2}, which "
                "keeps the batch"
            )
        self.size = tried // 2
        logger.warning(
            "%d images at once do not fit into memory (%s); computing %d at a time from now on. "
            "The batch stays as it was: gradients are added up",
            tried,
            reason,
            self.size,
        )


def run_in_parts(
    compute: Callable[[], T],
    micro_batches: MicroBatches,
    num_images: int,
    *,
    undo: Callable[[], None] | None = None,
) -> T:
    """Compute, and where memory does not suffice, again with smaller parts.

    Args:
        compute: asks `micro_batches` for the parts each time.
        micro_batches: shrunk here.
        num_images: of the batch.
        undo: removes what a failed attempt left behind.

    Raises:
        OutOfMemory: if it cannot be computed in smaller parts.
    """
    while True:
        try:
            return compute()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reason = first_line(error)
        # Here the error is gone, and with it the frames that held on to tensors.
        if undo is not None:
            undo()
        free_memory()
        micro_batches.shrink(num_images, reason)


def free_memory() -> None:
    """Give back what nobody uses any more, so that parts of another size find room."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
