"""The one way in which the host waits for a device inside a training step."""

import torch
from torch import Tensor


def wait_for(tensor: Tensor) -> Tensor:
    """Bring a tensor to the host, and wait until it is there.

    Everything else in a step is only queued. A GPU runs dry while the host waits, so whatever the
    host has to know comes in one tensor. The copy goes through page-locked memory and its end is an
    event: `torch.cuda.set_sync_debug_mode("error")` raises at every other way of waiting, which
    are those that happen by accident.

    Args:
        tensor: on any device.

    Returns:
        The same values on the host; the tensor itself if it is there.
    """
    if tensor.device.type != "cuda":
        return tensor.cpu()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(tensor.device))
    event.synchronize()
    return host
