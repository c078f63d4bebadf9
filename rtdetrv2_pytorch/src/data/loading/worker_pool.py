"""Worker processes that load batches, and are replaced when they crash."""

import contextlib
import json
import logging
import math
import multiprocessing.util
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Literal

import torch

from ...misc.errors import DatasetError
from ..dataset import DetectionDataset
from .collate import Batch, BatchImageCollateFunction
from .packed_batch import pack, unpack

logger = logging.getLogger(__name__)

StartMethod = Literal["fork", "spawn", "forkserver"]

_MAX_WORKER_RESTARTS = 3  # after more crashes the main process loads
_POLL_SECONDS = 1.0  # interval of the checks that the other process is running
_MAX_REQUEST_BYTES = 1 << 20
_MAX_RESPONSE_BYTES = 1 << 14
_MAX_QUEUED = 64  # batches per worker, so that responses always fit into the socket's buffer
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class WorkersUnavailableError(Exception):
    """Workers cannot load any more batches; the message names the reason and the remedy."""


def load_batch(
    dataset: DetectionDataset, collate_fn: BatchImageCollateFunction, indices: Sequence[int]
) -> Batch:
    """Load and collate the images of one batch; indices from `len(dataset)` on are copies."""
    size = len(dataset)
    return collate_fn([dataset[i] if i < size else dataset.load(i) for i in indices])


@dataclass
class _Worker:
    """A process, the socket connected to it, and its pending requests."""

    process: BaseProcess
    channel: socket.socket
    requests: dict[int, list[int]] = field(default_factory=dict)  # batch number -> image indices

    def request(self, number: int, indices: list[int]) -> None:
        """Request a batch; `WorkerPool._receive` detects crashes."""
        self.requests[number] = indices
        with contextlib.suppress(ConnectionError):
            self.channel.send(json.dumps([number, indices]).encode())

    def stop(self) -> None:
        """Kill the process, which ignores other signals and holds no state."""
        self.process.kill()
        self.process.join()
        self.channel.close()


class WorkerPool:
    """Loads the batches of an epoch in worker processes.

    Each worker has its own socket with atomic messages, so a worker that is killed at any point
    cannot damage or block messages of others. A request is the number of a batch and the indices of
    its images, the answer a file descriptor (see `packed_batch`). If loading fails in a worker, the
    main process loads the batch again, which raises the original exception.

    See `DataLoader` for the arguments.

    Raises:
        WorkersUnavailableError: if a process cannot be started.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        collate_fn: BatchImageCollateFunction,
        *,
        num_workers: int,
        prefetch_factor: int,
        timeout: float,
        in_order: bool,
        start_method: StartMethod | None,
    ) -> None:
        self.dataset = dataset
        self.collate_fn = collate_fn
        self.timeout = timeout
        self.in_order = in_order
        self._max_ahead = num_workers * min(prefetch_factor, _MAX_QUEUED)
        self._context = multiprocessing.get_context(start_method)
        self._num_restarts = 0
        self._iteration = 0
        self._workers: list[_Worker] = []
        # Called when the pool is garbage collected or the interpreter exits, before
        # multiprocessing waits for its processes, and only in the process that made the pool.
        self.close = multiprocessing.util.Finalize(
            self, _stop_all, args=(self._workers,), exitpriority=10
        )
        for _ in range(num_workers):
            self._workers.append(self._start_worker())

    def load(self, batches: Sequence[list[int]]) -> Iterator[tuple[int, Batch]]:
        """Load batches, given by the indices of their images.

        Yields:
            The number of a batch in `batches`, and the batch.

        Raises:
            WorkersUnavailableError: if workers keep crashing or cannot send batches.
            DatasetError: if a batch takes longer than `timeout`.
        """
        self._iteration += 1
        iteration = self._iteration
        while any(worker.requests for worker in self._workers):  # the last iteration ended early
            self._receive()
        num_requested = 0
        received: dict[int, Batch | None] = {}
        for num_yielded in range(len(batches)):
            while num_requested < min(len(batches), num_yielded + self._max_ahead):
                worker = min(self._workers, key=lambda w: len(w.requests))
                worker.request(num_requested, batches[num_requested])
                num_requested += 1
            while not (num_yielded in received if self.in_order else received):
                received |= self._receive()
            number = num_yielded if self.in_order else next(iter(received))
            batch = received.pop(number)
            if batch is None:
                batch = load_batch(self.dataset, self.collate_fn, batches[number])
            yield number, batch
            if iteration != self._iteration:
                raise RuntimeError("a loader with workers allows one iteration at a time")

    def _receive(self) -> dict[int, Batch | None]:
        """Wait for responses and replace crashed workers.

        Returns:
            Batches by number; None for one that could not be loaded. May be empty.
        """
        deadline = time.monotonic() + (self.timeout or math.inf)
        poll = min(_POLL_SECONDS, self.timeout or math.inf)
        while not (ready := wait([worker.channel for worker in self._workers], poll)):
            # Usually a crash closes the channel, but other processes may hold a copy of it.
            if crashed := [w for w in self._workers if not w.process.is_alive()]:
                self._replace(crashed)
            elif time.monotonic() >= deadline:
                raise DatasetError(
                    f"workers loaded no batch within timeout = {self.timeout:g} seconds; check "
                    "the storage of the images, increase timeout, or set it to 0 for no limit"
                )
        received: dict[int, Batch | None] = {}
        crashed = []
        for worker in self._workers:
            if worker.channel not in ready:
                continue
            try:
                message, fds, _, _ = socket.recv_fds(worker.channel, _MAX_RESPONSE_BYTES, 1)
            except ConnectionResetError:  # reported once, before responses that are still queued
                continue
            if not message:
                crashed.append(worker)
                continue
            number, status, reason = json.loads(message)
            del worker.requests[number]
            received[number] = self._open(status, reason, fds)
        if crashed:
            self._replace(crashed)
        return received

    def _open(self, status: str, reason: str, fds: list[int]) -> Batch | None:
        """Return the batch of an answer, or None if the worker could not load it."""
        if status == "load failed":
            logger.warning("A worker failed: %s. The main process loads its batch again", reason)
            return None
        try:
            if status == "packed":
                if not fds:
                    raise OSError("too many open files in the main process")
                return unpack(fds[0])
        except OSError as error:
            reason = str(error)
        raise WorkersUnavailableError(
            f"workers cannot send batches ({reason}); give the machine or container more memory, "
            "raise the limit of open files (ulimit -n), or set num_workers to 0"
        )

    def _replace(self, crashed: Sequence[_Worker]) -> None:
        """Start new workers for the requests of crashed ones; simultaneous crashes count once."""
        time.sleep(0.1)
        crashed = [w for w in self._workers if w in crashed or not w.process.is_alive()]
        crashed[0].process.join(_POLL_SECONDS)
        reason = f"worker {crashed[0].process.pid} crashed ({_ending(crashed[0].process.exitcode)})"
        self._num_restarts += 1
        if self._num_restarts > _MAX_WORKER_RESTARTS:
            raise WorkersUnavailableError(
                f"{reason} after {_MAX_WORKER_RESTARTS} restarts; if memory is short, reduce "
                "num_workers"
            )
        logger.warning("%s; a new worker loads its batches again", reason)
        for worker in crashed:
            worker.stop()
            new = self._start_worker()
            self._workers[self._workers.index(worker)] = new
            for number, indices in worker.requests.items():
                new.request(number, indices)

    def _start_worker(self) -> _Worker:
        try:
            channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            process = self._context.Process(  # type: ignore[attr-defined]
                target=_run_worker, args=(self.dataset, self.collate_fn, theirs), daemon=True
            )
            # Blocked until the new process ignores them.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
            try:
                process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                theirs.close()
        except OSError as error:
            raise WorkersUnavailableError(
                f"cannot start a worker ({error}); reduce num_workers"
            ) from error
        return _Worker(process, channel)


def _stop_all(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.stop()


def _run_worker(
    dataset: DetectionDataset, collate_fn: BatchImageCollateFunction, channel: socket.socket
) -> None:
    """Serve requests until the main process exits.

    Stop signals are ignored: the main process needs batches until it has handled them.
    """
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    parent = os.getppid()
    channel.settimeout(_POLL_SECONDS)
    request = bytearray(_MAX_REQUEST_BYTES)
    with contextlib.suppress(ConnectionError):
        while os.getppid() == parent:
            try:
                size = channel.recv_into(request)
            except TimeoutError:
                continue
            if not size:
                return
            number, indices = json.loads(request[:size])
            _serve_request(channel, number, dataset, collate_fn, indices)


def _serve_request(
    channel: socket.socket,
    number: int,
    dataset: DetectionDataset,
    collate_fn: BatchImageCollateFunction,
    indices: list[int],
) -> None:
    status, reason, fds = "load failed", "", []
    try:
        batch = load_batch(dataset, collate_fn, indices)
        status = "pack failed"
        fds = [pack(batch)]
        status = "packed"
    except Exception as error:  # noqa: BLE001 - the main process loads the batch and raises it
        reason = f"{type(error).__name__}: {error}"
    try:
        socket.send_fds(channel, [json.dumps([number, status, reason[:2000]]).encode()], fds)
    finally:
        for fd in fds:
            os.close(fd)


def _ending(exitcode: int | None) -> str:
    """Describe how a process ended."""
    if exitcode is None:
        return "no exit code"
    if exitcode >= 0:
        return f"exit code {exitcode}"
    name = signal.Signals(-exitcode).name
    return f"{name}, often caused by insufficient memory" if name == "SIGKILL" else name
