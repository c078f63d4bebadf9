"""Devices by their names, with one error for those that are not here."""

import torch
from torch import Tensor

from .errors import ConfigError
from .text import first_line


def named_device(name: str | torch.device) -> torch.device:
    """The device of a name, whether it is here or not.

    Raises:
        ConfigError: if there are no such devices.
    """
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device = {name!r}: {first_line(error)}") from error


def checked_device(name: str | torch.device) -> torch.device:
    """The device of a name, which is here.

    Raises:
        ConfigError: if it is not, or is neither a CPU nor a GPU of CUDA.
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
    """See whether `torch.compile` can make a kernel for a device: what it needs differs widely.

    Raises:
        ConfigError: if it cannot.
    """

    def kernel(value: Tensor) -> Tensor:
        return value.sin() + 1

    try:
        torch.compile(kernel)(torch.zeros(8, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        raise ConfigError(
            f"compile = true: torch.compile makes no kernels here ({first_line(error)}); "
            "install a C++ compiler (g++), or leave compile out"
        ) from error
