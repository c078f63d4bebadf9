"""The only device synchronization of a training step."""

import torch
from torch import Tensor


def wait_for(tensor: Tensor) -> Tensor:
    """Copy a tensor to the host and wait for it.

    All other operations of a step are queued. A GPU idles while the host waits, so one tensor
    holds all values that the host needs. The copy uses page-locked memory and an event:
    `torch.cuda.set_sync_debug_mode("error")` raises at every other, accidental synchronization.

    Args:
        tensor: a tensor on any device.

    Returns:
        The values on the host; the tensor itself if it is already there.
    """
    if tensor.device.type != "cuda":
        return tensor.cpu()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(tensor.device))
    event.synchronize()
    return host
