"""Batches in an order that follows from (seed, epoch), from any step on."""

import contextlib
import logging
import multiprocessing.connection
import os
import re
import signal
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import get_worker_info

from ...misc import distributed
from ...misc.errors import DatasetError
from ...structures import Target
from ..dataset import DetectionDataset
from .collate import Batch, BatchImageCollateFunction
from .packed_batch import PackedBatch
from .sampler import EpochSampler, divided_batch_size

logger = logging.getLogger(__name__)

_MOST_DEATHS = 3  # of workers; after more, the main process does their work
_DYING = 1.0  # seconds in which a worker that has closed its connections is dead
# What torch says; its errors have no types of their own.
_WORKER_DIED = re.compile(r"DataLoader worker \(pid|Pin memory thread exited")
_TOO_SLOW = re.compile(r"DataLoader timed out")
_CANNOT_SHARE = re.compile(
    r"shared memory|torch_\d+_|mmap|ancdata|Too many open files|unable to (resize|write)"
)

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def leave_stopping_to_the_main_process(worker: int) -> None:
    """Ignore what Ctrl-C or an agent sends to the whole group of processes.

    The main process ends the training at its next batch and needs its workers until then; a
    worker whose parent is gone ends by itself.
    """
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class _CollateAndPack:
    """Collates and, in a worker, moves the batch into shared memory.

    Else a thread of the worker would do that; its errors are printed, and the main process waits
    for the batch for ever. Here they are errors.
    """

    def __init__(self, collate: BatchImageCollateFunction) -> None:
        self.collate = collate

    def __call__(self, items: Sequence[tuple[Tensor, Target] | None]) -> Batch | PackedBatch:
        batch = self.collate(items)
        return batch if get_worker_info() is None else PackedBatch.of(*batch)


class DataLoader(TorchDataLoader[Any]):
    """Loads batches with worker processes that live as long as the loader.

    A worker that dies is replaced, and the batch that was due is loaded again: batches follow
    from their place, so nothing changes. Where that goes on, or batches cannot be shared between
    processes, the main process loads them itself.

    Args:
        dataset: what to load.
        batch_size: images per batch and rank.
        total_batch_size: images per batch over all ranks, however many there are; replaces
            `batch_size`.
        shuffle: draw a new order every epoch.
        num_workers: worker processes; 0 loads in the main one.
        collate_fn: items -> batch.
        pin_memory: page-locked memory, for transfers beside computation; default: with a GPU.
        drop_last: leave out the last, smaller batch.
        timeout: seconds to wait for a batch of the workers; 0 waits for ever.
        prefetch_factor: batches that each worker prepares ahead.
        persistent_workers: keep the workers between epochs.
        sampler: not supported; kept for existing YAML files.
        batch_sampler: not supported; kept for existing YAML files.
        worker_init_fn: not supported; kept for existing YAML files.
        multiprocessing_context: how workers are started.
        generator: not supported; kept for existing YAML files.
        pin_memory_device: kept for existing YAML files.
        in_order: keep the order of batches.
        seed: of the run.

    Raises:
        DatasetError: if no batch can be made; in iteration, if one takes longer than `timeout`.
    """

    def __init__(
        self,
        *,
        dataset: DetectionDataset,
        batch_size: int = 1,
        total_batch_size: int | None = None,
        shuffle: bool | None = None,
        sampler: None = None,
        batch_sampler: None = None,
        num_workers: int = 0,
        collate_fn: BatchImageCollateFunction | None = None,
        pin_memory: bool | None = None,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: None = None,
        multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None = None,
        generator: None = None,
        prefetch_factor: int | None = None,
        persistent_workers: bool = True,
        pin_memory_device: Literal[""] = "",
        in_order: bool = True,
        seed: int = 0,
    ) -> None:
        self.collate = collate_fn or BatchImageCollateFunction()
        self.epoch_sampler = EpochSampler(
            len(dataset),
            divided_batch_size(batch_size, total_batch_size, is_training=bool(shuffle)),
            shuffle=bool(shuffle),
            drop_last=drop_last,
            seed=seed,
        )
        if len(self.epoch_sampler) == 0 and (shuffle or drop_last or not len(dataset)):
            raise DatasetError(
                f"{len(dataset)} images give no batch of {self.epoch_sampler.total_batch_size} for "
                f"{distributed.world_size()} ranks; use a smaller batch_size or add images"
            )
        num_workers = min(num_workers, os.cpu_count() or 1)
        super().__init__(
            dataset,
            batch_sampler=self.epoch_sampler,
            num_workers=num_workers,
            collate_fn=_CollateAndPack(self.collate),
            pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
            timeout=timeout if num_workers else 0,
            worker_init_fn=leave_stopping_to_the_main_process,
            multiprocessing_context=multiprocessing_context if num_workers else None,
            generator=torch.Generator(),  # of its own: loading leaves the global one alone
            prefetch_factor=prefetch_factor if num_workers else None,
            persistent_workers=persistent_workers and num_workers > 0,
            in_order=in_order,
        )
        self._deaths = 0

    def set_epoch(self, epoch: int, start_step: int = 0) -> None:
        """Choose order and augmentations of an epoch, and the batch to begin with."""
        self.dataset.set_epoch(epoch)  # type: ignore[attr-defined]
        self.epoch_sampler.set_epoch(epoch, start_step)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        step = self.epoch_sampler.start_step
        while True:
            running = None
            try:
                running = self._start(step)
                for batch in running:
                    step += 1
                    yield batch.unpack() if isinstance(batch, PackedBatch) else batch
                return
            except (RuntimeError, OSError, EOFError) as error:
                self._give_up_workers(error, running or self._iterator)

    def _start(self, step: int) -> Any:
        """Begin with a batch of the epoch.

        Torch raises the death of a worker wherever the main process happens to be, even amid an
        optimizer step. Its handler is taken away: waiting for a batch finds out, too.
        """
        is_main_thread = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGCHLD)
        first, self.epoch_sampler.start_step = self.epoch_sampler.start_step, step
        # Blocked until a new worker has said that it ignores them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self.epoch_sampler.start_step = first
            if is_main_thread and handler is not None:
                signal.signal(signal.SIGCHLD, handler)

    def _get_iterator(self) -> Any:
        """Start workers that end with their iterator, however that ends.

        One that Python's collector takes, or the end of the interpreter, cannot reach its workers
        any more but by SIGTERM, which they ignore.
        """
        iterator: Any = super()._get_iterator()
        if self.num_workers:
            weakref.finalize(iterator, _kill, iterator._workers, os.getpid())
        return iterator

    def _give_up_workers(self, error: Exception, running: Any) -> None:
        """End all workers if one failed as a process; errors of what they do are raised."""
        if _TOO_SLOW.search(str(error)):
            raise DatasetError(
                f"workers made no batch in timeout = {self.timeout:g} seconds; look whether the "
                "images' storage answers, give more seconds, or 0 to wait for ever"
            ) from error
        workers = list(getattr(running, "_workers", ()))
        if not workers:
            raise error
        is_connection_lost = not isinstance(error, RuntimeError)
        if is_connection_lost:  # a worker closes its files just before it counts as dead
            ending = multiprocessing.connection.wait([w.sentinel for w in workers], _DYING)
            for worker in workers:
                worker.join(_DYING if worker.sentinel in ending else 0)
        dead = [worker for worker in workers if worker.exitcode is not None]
        cannot_share = _CANNOT_SHARE.search(str(error)) or any(
            worker.exitcode == -signal.SIGBUS for worker in dead
        )
        has_died = (is_connection_lost and dead) or _WORKER_DIED.search(str(error))
        if not (cannot_share or has_died):
            raise error
        if dead:
            reason = f"worker {dead[0].pid} ended ({_ending(dead[0].exitcode)})"
        else:
            reason = str(error).splitlines()[-1]
        self._deaths += 1
        self._iterator = None
        with contextlib.suppress(RuntimeError):
            running._shutdown_workers()
        if cannot_share:
            self._load_in_main_process()
            logger.warning(
                "workers cannot hand over images: %s. The main process loads them now, which is "
                "slower; give the machine or container more shared memory (docker: --shm-size), "
                "raise its limit of open files, or set num_workers to 0",
                reason,
            )
        elif self._deaths > _MOST_DEATHS:
            self._load_in_main_process()
            logger.warning(
                "%s, again. The main process loads images now, which is slower; if memory is "
                "short, set num_workers to fewer",
                reason,
            )
        else:
            logger.warning("%s; new workers load its batch again", reason)

    def _load_in_main_process(self) -> None:
        self.num_workers = 0
        self.timeout = 0  # it cannot wait for itself


def _kill(workers: Sequence[Any], parent: int) -> None:
    if os.getpid() == parent:  # other workers hold a copy of the iterator
        for worker in workers:
            worker.kill()


def _ending(exitcode: int) -> str:
    """How a process ended, in words."""
    if exitcode >= 0:
        return f"exit code {exitcode}"
    name = signal.Signals(-exitcode).name
    return f"{name}, often for lack of memory" if name == "SIGKILL" else name
