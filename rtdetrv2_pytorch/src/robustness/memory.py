"""Recovery from out-of-memory errors: compute a batch in micro-batches."""

import gc
import logging
import math
from collections.abc import Callable
from typing import TypeVar

import torch

from ..misc import distributed
from ..misc.errors import OutOfMemory
from ..misc.text import counted, first_line

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Messages of allocators of torch, the CUDA libraries and the host that have no exception type.
_MESSAGES = ("out of memory", "alloc_failed", "can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports a failed allocation."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(text in message for text in _MESSAGES)


class MicroBatches:
    """Divides batches into micro-batches, and shrinks these when memory does not suffice.

    Args:
        size: images per micro-batch; None: the whole batch.
        is_fixed: never shrink, because other ranks would wait for the repeated part. The ranks
            agree on the number of micro-batches instead.
    """

    def __init__(self, size: int | None = None, *, is_fixed: bool = False) -> None:
        self.size = size
        self.is_fixed = is_fixed

    def parts(self, num_images: int) -> list[slice]:
        """Divide a batch into micro-batches of at most `size` images, as equal as possible."""
        sizes = [num_images]
        if self.size and self.is_fixed:
            sizes = [size for (size,) in distributed.gather_numbers(num_images)]
        count = min(math.ceil(max(sizes) / (self.size or max(sizes))), *sizes)
        ends = [num_images * i // count for i in range(count + 1)]
        return [slice(start, end) for start, end in zip(ends[:-1], ends[1:], strict=True)]

    def map(self, compute: Callable[[slice], T], num_images: int) -> list[T]:
        """Call a function with every micro-batch of a batch, with retries as in `retry`."""
        return self.retry(lambda: [compute(part) for part in self.parts(num_images)], num_images)

    def retry(
        self, compute: Callable[[], T], num_images: int, *, undo: Callable[[], None] | None = None
    ) -> T:
        """Call a function; after an out-of-memory error, again with smaller micro-batches.

        Args:
            compute: calls `parts` each time.
            num_images: images of the batch.
            undo: removes the effects of a failed attempt.

        Raises:
            OutOfMemory: if the batch cannot be computed in smaller micro-batches.
        """
        while True:
            try:
                return compute()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                reason = first_line(error)
            # Outside the handler the error and its frames, which hold tensors, are released.
            if undo is not None:
                undo()
            free_memory()
            self.shrink(num_images, reason)

    def shrink(self, num_images: int, reason: str) -> None:
        """Halve the micro-batch size.

        Args:
            num_images: images of the batch that did not fit.
            reason: message of the allocator.

        Raises:
            OutOfMemory: if a single image does not fit, or the size is fixed.
        """
        tried = min(self.size or num_images, num_images)
        if tried == 1:
            raise OutOfMemory(
                f"a single image does not fit in memory ({reason}); choose a smaller "
                "eval_spatial_size, smaller collate_fn.scales or a smaller model, set use_amp, "
                "or end other programs that use this device"
            )
        if self.is_fixed:
            raise OutOfMemory(
                f"a micro-batch of {counted(tried, 'image')} does not fit in memory ({reason}), "
                f"and other ranks wait for this one; resume last.pth with micro_batch_size = "
                f"{tried // 2}, which keeps the batch size"
            )
        self.size = tried // 2
        logger.warning(
            "a micro-batch of %s does not fit in memory (%s); using micro-batches of %d. "
            "The batch size stays: gradients are accumulated",
            counted(tried, "image"),
            reason,
            self.size,
        )


def free_memory() -> None:
    """Release cached memory so that tensors of other sizes fit."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
