"""Ranks: who am I, and the few collective operations that training needs.

Every function works without a process group and then means "one process".
"""

import logging
import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def is_distributed() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Index of this process, 0 for the main one."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    """Whether this process writes files and logs."""
    return rank() == 0


def init_from_environment(device: torch.device) -> torch.device:
    """Join the process group that `torchrun` describes in the environment, if there is one.

    Args:
        device: what the user asked for; a bare "cuda" becomes this rank's own device.

    Returns:
        The device this process should use.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not is_distributed():
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        # What is on the host stays there: small agreements do not wait for the device.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return device


def shutdown() -> None:
    """Leave the process group, if there is one."""
    if is_distributed():
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for all ranks."""
    if is_distributed():
        dist.barrier()


def share_buffers(module: nn.Module) -> None:
    """Give every rank the main rank's running statistics, which each has updated for itself."""
    if is_distributed():
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def all_reduce_mean(value: Tensor) -> Tensor:
    """Average a tensor over the ranks, without waiting for the device on the host."""
    if not is_distributed():
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value / world_size()


def on_any_rank(condition: bool) -> bool:
    """Whether a condition holds on at least one rank; all ranks get the same answer."""
    if not is_distributed():
        return condition
    value = torch.tensor(int(condition))
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value)


def all_gather_objects(value: Any) -> list[Any]:
    """Collect one picklable object per rank, in rank order, on every rank."""
    if not is_distributed():
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


class MainRankFilter(logging.Filter):
    """Lets a handler pass on what the main rank logs, and warnings of the others."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the record on the main rank, or from WARNING upwards."""
        return is_main() or record.levelno >= logging.WARNING
