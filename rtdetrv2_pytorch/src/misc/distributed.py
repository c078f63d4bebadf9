"""Ranks: who am I, and the few collective operations that training needs.

Every function works without a process group and then means "one process".
"""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store
from torch.distributed.elastic.multiprocessing.errors import ErrorHandler
from torch.distributed.rendezvous import rendezvous

from .devices import checked_device
from .errors import RankError
from .rank_watch import RankWatch, of_this_start, watch_ranks

_START = timedelta(minutes=30)  # from the first rank to the last
_LATER_S = 60  # after our own timeout, which names the rank, torch's may come
_MAIN_FIRST_S = 2  # what all ranks find wrong before they meet, the main rank says


@dataclass
class _State:
    is_alone: bool = False
    watch: RankWatch | None = None


_state = _State()


def is_distributed() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and not _state.is_alone


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Compute as the only process, whatever the other ranks do: nothing waits for them."""
    _state.is_alone = True
    try:
        yield
    finally:
        _state.is_alone = False


def rank() -> int:
    """Index of this process, 0 for the main one."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    """Whether this process writes files and logs."""
    return rank() == 0


def init_from_environment(device: torch.device, *, timeout_s: float = 120) -> torch.device:
    """Join the process group that `torchrun` describes in the environment, if there is one.

    Args:
        device: what the user asked for; with several ranks a GPU becomes this rank's own.
        timeout_s: that a rank may wait for another, once all have come.

    Returns:
        The device this process should use.

    Raises:
        ConfigError: if there is no GPU for this rank.
        RankError: naming the ranks that do not come.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1 and not is_distributed():
        if device.type == "cuda":
            device = checked_device(torch.device("cuda", int(os.environ["LOCAL_RANK"])))
            torch.cuda.set_device(device)
        connection, rank, _ = next(rendezvous("env://", timeout=_START))
        store = of_this_start(connection)
        _await_all(store, rank, ranks)
        # What is on the host stays there: small agreements do not wait for the device.
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=ranks,
            timeout=timedelta(seconds=timeout_s + _LATER_S),
        )
        _state.watch = watch_ranks(rank=rank, world_size=ranks, timeout_s=timeout_s)
    return device


def _await_all(store: Store, rank: int, ranks: int) -> None:
    """The main rank may examine the data first, which takes longer than any later wait."""
    store.set(f"came/{rank}", "")
    try:
        store.wait([f"came/{each}" for each in range(ranks)], _START)
    except RuntimeError as error:
        missing = [str(each) for each in range(ranks) if not store.check([f"came/{each}"])]
        raise RankError(
            f"of {ranks} ranks, these have not started within {_START}: {', '.join(missing)}"
        ) from error


def meeting() -> contextlib.AbstractContextManager[None]:
    """Around what waits for the other ranks, so that those that do not come can be named."""
    return _state.watch.meeting() if _state.watch and is_distributed() else contextlib.nullcontext()


def report_failure(error: Exception) -> Exception:
    """Tell the other ranks, and the launcher, that this one fails.

    Returns:
        What to say: the error, or a `RankError` that explains a lost contact.
    """
    if _state.watch is not None:
        error = _state.watch.report(error)
    elif int(os.environ.get("RANK", "0")) > 0:
        time.sleep(_MAIN_FIRST_S)
    ErrorHandler().record_exception(error)
    return error


def run_id() -> str | None:
    """What all starts of one run under `torchrun` have in common, restarts included."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    # Without a rendezvous there is no name: one launcher then does all restarts.
    return f"{socket.gethostname()}:{os.getppid()}" if name == "none" else name


def is_restarted() -> bool:
    """Whether `torchrun` has started this run before, as far as it counts."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def shutdown() -> None:
    """Leave the process group, if there is one."""
    if _state.watch is not None:
        _state.watch.close()
        _state.watch = None
    if is_distributed():
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for all ranks."""
    if is_distributed():
        with meeting():
            dist.barrier()


def share_buffers(module: nn.Module) -> None:
    """Give every rank the main rank's running statistics, which each has updated for itself."""
    if is_distributed():
        with meeting():
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)


def sum_over_ranks(value: Tensor) -> Tensor:
    """Add up a tensor over the ranks, without waiting for the device on the host."""
    if not is_distributed():
        return value
    value = value.clone()
    with meeting():
        dist.all_reduce(value)
    return value


def gather_numbers(*numbers: int) -> list[list[int]]:
    """Every rank's whole numbers, in rank order, on every rank: host to host, in one go."""
    mine = torch.tensor(numbers)
    if not is_distributed():
        return [list(numbers)]
    gathered = [torch.empty_like(mine) for _ in range(world_size())]
    with meeting():
        dist.all_gather(gathered, mine)
    return [part.tolist() for part in gathered]


def on_any_rank(condition: bool) -> bool:
    """Whether a condition holds on at least one rank; all ranks get the same answer."""
    if not is_distributed():
        return condition
    value = torch.tensor(int(condition))
    with meeting():
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value)


def all_gather_objects(value: Any) -> list[Any]:
    """Collect one picklable object per rank, in rank order, on every rank."""
    if not is_distributed():
        return [value]
    gathered: list[Any] = [None] * world_size()
    with meeting():
        dist.all_gather_object(gathered, value)
    return gathered


def mean_over_ranks(values: Mapping[str, float]) -> dict[str, float]:
    """Average named numbers over the ranks that have them; waits for the other ranks."""
    parts = [part for part in all_gather_objects(dict(values)) if part]
    names = parts[0] if parts else ()
    return {name: sum(part[name] for part in parts) / len(parts) for name in names}


class MainRankFilter(logging.Filter):
    """Lets a handler pass on what the main rank logs, and warnings of the others."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the record on the main rank, or from WARNING upwards."""
        return is_main() or record.levelno >= logging.WARNING
