"""A training on multiple devices: one process per device, running `rank.py`.

The app starts the ranks with torch's elastic launcher. It receives events from the main rank and
sends it stop requests over a socket in a folder that only this user can open. If one rank fails,
the launcher ends the others.
"""

import json
import logging
import shutil
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from rtdetrv2_pytorch.src.misc.errors import RankError
from rtdetrv2_pytorch.src.misc.text import counted
from rtdetrv2_pytorch.src.solver.events import FitResult, TrainingEvents
from rtdetrv2_pytorch.src.solver.stopping import StopFlag

logger = logging.getLogger(__name__)

RANK = "supervisely_integration.train.rank"
_POLL_S = 0.2
_DRAIN_S = 10.0  # for the last messages of the main rank


@dataclass(frozen=True)
class RankResult:
    """The result of the main rank."""

    result: FitResult
    config: dict[str, Any]  # resolved
    report: Path | None  # the training report, if it was written


def train_on_devices(
    base_config: Path,
    overrides: Mapping[str, Any],
    devices: Sequence[str],
    events: TrainingEvents,
    stop: StopFlag,
    *,
    time_budget: Mapping[str, float] | None = None,
) -> RankResult:
    """Train on multiple devices; blocks until all ranks have ended.

    Args:
        base_config: configuration of the model.
        overrides: plain values that override it.
        devices: one per rank: "cuda:0", "cuda:2", ..., or "cpu" several times.
        events: receives the events of the main rank.
        stop: ends the training at its next batch.
        time_budget: `start_s` and `reserve_s` of `DetSolver`.

    Raises:
        RankError: with the rank that failed first, and the reason.
        Exception: raised by `events`; the ranks have stopped and saved before.
    """
    folder = Path(tempfile.mkdtemp(prefix="ranks-"))
    task = folder / "task.json"
    address = str(folder / "main_rank")
    values = {"config": str(base_config), "overrides": dict(overrides), "devices": list(devices)}
    values |= {"address": address, "time_budget": dict(time_budget or {})}
    task.write_text(json.dumps(values))
    try:
        with Follower(address, events, stop) as follower:
            logger.info("Training on %s: %s", counted(len(devices), "device"), ", ".join(devices))
            launch = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=len(devices),
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                run_id=folder.name,
                local_addr="localhost",
                max_restarts=0,  # the task resumes when it is relaunched; an error would recur
                logs_specs=DefaultLogsSpecs(log_dir=str(folder)),
            )
            try:
                elastic_launch(launch, sys.executable)("-m", RANK, str(task))
            except ChildFailedError as error:
                raise RankError(_first_failure(error, devices)) from error
        if follower.error is not None:
            raise follower.error
        if follower.result is None:
            raise RankError("the main rank ended without a result; see its log above")
        return follower.result
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _first_failure(error: ChildFailedError, devices: Sequence[str]) -> str:
    rank, failure = error.get_first_failure()
    return f"rank {rank} ({devices[rank]}): {_message(failure)}"


def _message(failure: ProcessFailure) -> str:
    message: Any = failure.message
    if isinstance(message, Mapping):
        return str(message["message"])
    if failure.exitcode < 0:
        return f"killed by {failure.signal_name()}, often because memory ran out"
    return f"exited with code {failure.exitcode}; see its log above"


class Follower:
    """The app's end of the connection with the main rank.

    Args:
        address: of the socket to create.
        events: receives the events of the main rank, in a thread of this object.
        stop: sent to the main rank.
    """

    def __init__(self, address: str, events: TrainingEvents, stop: StopFlag) -> None:
        self.result: RankResult | None = None
        self.error: Exception | None = None  # the first one raised by `events`
        self._address = address
        self._events = events
        self._stop = stop
        self._is_connected = threading.Event()
        self._listener = Listener(address, family="AF_UNIX")
        self._thread = threading.Thread(target=self._follow, name="main rank", daemon=True)

    def __enter__(self) -> "Follower":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if not self._is_connected.is_set():  # no rank will: unblock the thread
            Client(self._address, family="AF_UNIX").close()
        self._thread.join(_DRAIN_S)
        self._listener.close()

    def _follow(self) -> None:
        with self._listener.accept() as connection:
            self._is_connected.set()
            is_sent = False
            try:
                while True:
                    if self._stop.is_set and not is_sent:
                        connection.send(self._stop.reason)
                        is_sent = True
                    if connection.poll(_POLL_S):
                        self._handle(*connection.recv())
            except (EOFError, OSError) as error:
                logger.debug("the main rank disconnected: %r", error)

    def _handle(self, kind: str, content: Any) -> None:
        if kind == "event":
            self._forward(*content)
        elif kind == "log":
            logging.getLogger(content.name).handle(content)
        else:
            self.result = RankResult(*content)

    def _forward(self, name: str, arguments: tuple[Any, ...]) -> None:
        try:
            getattr(self._events, name)(*arguments)
        except Exception as error:  # noqa: BLE001 (raised again once the ranks have ended)
            self.error = self.error or error
            self._stop.request(f"the app failed to handle an event: {error!r}")
