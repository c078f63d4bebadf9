"""Devices by name, and the only device synchronization of a training step."""

import torch
from torch import Tensor

from .errors import ConfigError
from .text import first_line


def named_device(name: str | torch.device) -> torch.device:
    """Return the device of a name, available or not.

    Raises:
        ConfigError: if the name is invalid.
    """
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device = {name!r}: give cpu, cuda or cuda:1") from error


def checked_device(name: str | torch.device) -> torch.device:
    """Return the device of a name if it is available.

    Raises:
        ConfigError: if it is unavailable, or neither a CPU nor a CUDA device.
    """
    device = named_device(name)
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device = {str(name)!r}: give cpu, cuda or cuda:1")
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigError(
            f"device = {str(name)!r}: torch sees {count} GPUs here; choose another or cpu, or "
            "check driver and CUDA_VISIBLE_DEVICES"
        )
    return device


def check_compiler(device: torch.device) -> None:
    """Compile a small kernel for a device: `torch.compile` depends on installed compilers.

    Raises:
        ConfigError: if the compilation fails.
    """

    def kernel(value: Tensor) -> Tensor:
        return value.sin() + 1

    try:
        torch.compile(kernel)(torch.zeros(8, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        raise ConfigError(
            f"compile = true: torch.compile failed ({first_line(error)}); install a C++ compiler "
            "(g++), or remove compile"
        ) from error


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
