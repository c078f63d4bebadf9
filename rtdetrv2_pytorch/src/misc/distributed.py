"""Ranks and the collective operations of a training.

Every function works without a process group, as for a single process.
"""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.elastic.multiprocessing.errors import ErrorHandler
from torch.distributed.rendezvous import rendezvous

from .devices import checked_device
from .errors import RankError
from .text import counted

_START_TIMEOUT = timedelta(minutes=30)  # from the first rank to the last
_EXTRA_TIMEOUT_S = 60  # torch's timeout follows ours, which names the rank
_MAIN_FIRST_S = 2  # the main rank reports errors that all ranks find before they join


class Watch(Protocol):
    """Monitors the other ranks; see `robustness.rank_watch`."""

    def collective(self) -> contextlib.AbstractContextManager[None]:
        """Return a context for an operation that waits for all ranks."""

    def report(self, error: Exception) -> Exception:
        """Send the error of this rank to the others; returns the error to show."""

    def close(self) -> None:
        """Stop monitoring."""


@dataclass
class _State:
    is_single_process: bool = False
    watch: Watch | None = None


_state = _State()


def is_distributed() -> bool:
    """Return whether this process is one of several ranks."""
    return dist.is_available() and dist.is_initialized() and not _state.is_single_process


@contextlib.contextmanager
def single_process() -> Iterator[None]:
    """Compute as a single process: collective operations do not wait for other ranks."""
    _state.is_single_process = True
    try:
        yield
    finally:
        _state.is_single_process = False


def rank() -> int:
    """Return the index of this process; 0 is the main rank."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Return the number of ranks."""
    return dist.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    """Return whether this is the main rank, which writes files and logs."""
    return rank() == 0


def init_from_environment(
    device: torch.device, *, timeout_s: float = 120, watch: Callable[..., Watch] | None = None
) -> torch.device:
    """Join the process group that `torchrun` describes in the environment, if any.

    Args:
        device: the configured device; with several ranks, each one uses its own GPU.
        timeout_s: maximum wait for another rank after all ranks have joined.
        watch: starts monitoring the ranks; called with rank, world_size and timeout_s.

    Returns:
        The device of this process.

    Raises:
        ConfigError: if there is no GPU for this rank.
        RankError: if ranks do not join; the message names them.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1 and not is_distributed():
        if device.type == "cuda":
            device = checked_device(torch.device("cuda", int(os.environ["LOCAL_RANK"])))
            torch.cuda.set_device(device)
        connection, rank, _ = next(rendezvous("env://", timeout=_START_TIMEOUT))
        store = restart_store(connection)
        _wait_for_all(store, rank, ranks)
        # gloo for tensors on the host: small agreements do not wait for the device.
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=ranks,
            timeout=timedelta(seconds=timeout_s + _EXTRA_TIMEOUT_S),
        )
        if watch is not None:
            _state.watch = watch(rank=rank, world_size=ranks, timeout_s=timeout_s)
    return device


def restart_store(store: Store) -> Store:
    """Return a store without the keys of earlier starts of the same run.

    Only a single launcher knows how often all ranks were started.
    """
    is_single = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if is_single else "0"
    return PrefixStore(f"start_{start}", store)


def _wait_for_all(store: Store, rank: int, ranks: int) -> None:
    """Wait longer than in training: the main rank may examine the data first."""
    store.set(f"came/{rank}", "")
    try:
        store.wait([f"came/{each}" for each in range(ranks)], _START_TIMEOUT)
    except RuntimeError as error:
        missing = [str(each) for each in range(ranks) if not store.check([f"came/{each}"])]
        raise RankError(
            f"of {counted(ranks, 'rank')}, these have not started within {_START_TIMEOUT}: "
            f"{', '.join(missing)}; see their output, and check that they reach MASTER_ADDR"
        ) from error


def collective() -> contextlib.AbstractContextManager[None]:
    """Return a context for an operation that waits for all ranks, so that late ones are named."""
    watch = _state.watch
    return watch.collective() if watch and is_distributed() else contextlib.nullcontext()


def report_failure(error: Exception) -> Exception:
    """Report an error of this rank to the other ranks and to the launcher.

    Returns:
        The error to show: the error itself, or a `RankError` that explains a lost connection.
    """
    if _state.watch is not None:
        error = _state.watch.report(error)
    elif int(os.environ.get("RANK", "0")) > 0:
        time.sleep(_MAIN_FIRST_S)
    ErrorHandler().record_exception(error)
    return error


def run_id() -> str | None:
    """Return the identifier of a run under `torchrun`, equal for all its restarts."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    # Without a rendezvous there is no name, and one launcher does all restarts.
    return f"{socket.gethostname()}:{os.getppid()}" if name == "none" else name


def is_restarted() -> bool:
    """Return whether `torchrun` counts this start as a restart."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def shutdown() -> None:
    """Leave the process group, if any."""
    if _state.watch is not None:
        _state.watch.close()
        _state.watch = None
    if is_distributed():
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for all ranks."""
    if is_distributed():
        with collective():
            dist.barrier()


def share_buffers(module: nn.Module) -> None:
    """Broadcast the running statistics of the main rank to all ranks."""
    if is_distributed():
        with collective():
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)


def sum_over_ranks(value: Tensor) -> Tensor:
    """Return the sum of a tensor over the ranks, without a device synchronization."""
    if not is_distributed():
        return value
    value = value.clone()
    with collective():
        dist.all_reduce(value)
    return value


def gather_numbers(*numbers: int) -> list[list[int]]:
    """Return the integers of every rank, in rank order; a single operation on the host."""
    mine = torch.tensor(numbers)
    if not is_distributed():
        return [list(numbers)]
    gathered = [torch.empty_like(mine) for _ in range(world_size())]
    with collective():
        dist.all_gather(gathered, mine)
    return [part.tolist() for part in gathered]


def on_any_rank(condition: bool) -> bool:
    """Return whether a condition holds on at least one rank; equal on all ranks."""
    return any(held for (held,) in gather_numbers(int(condition)))


def all_gather_objects(value: Any) -> list[Any]:
    """Return one picklable object per rank, in rank order, on every rank."""
    if not is_distributed():
        return [value]
    gathered: list[Any] = [None] * world_size()
    with collective():
        dist.all_gather_object(gathered, value)
    return gathered


def mean_over_ranks(values: Mapping[str, float]) -> dict[str, float]:
    """Return the mean of named numbers over the ranks that have them."""
    parts = [part for part in all_gather_objects(dict(values)) if part]
    names = parts[0] if parts else ()
    return {name: sum(part[name] for part in parts) / len(parts) for name in names}


class MainRankFilter(logging.Filter):
    """Drops log records below WARNING on all ranks but the main one."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to keep the record."""
        return is_main() or record.levelno >= logging.WARNING
