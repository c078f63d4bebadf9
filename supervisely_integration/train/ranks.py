"""A training on several devices: a process for each, which `rank.py` is.

The app starts them through torch's own launcher, follows the main rank over a socket in a folder
that only this user can open, and tells it to stop. One that fails ends the others.
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
from rtdetrv2_pytorch.src.solver.events import FitResult, TrainingEvents
from rtdetrv2_pytorch.src.solver.stopping import StopFlag

logger = logging.getLogger(__name__)

RANK = "supervisely_integration.train.rank"
_POLL_S = 0.2
_DRAIN_S = 10.0  # for what the main rank said last


@dataclass(frozen=True)
class Outcome:
    """What the main rank gave back."""

    result: FitResult
    config: dict[str, Any]  # resolved
    report: Path | None  # the training report, if it was written


def train_on_devices(
    base_config: Path,
    overrides: Mapping[str, Any],
    devices: Sequence[str],
    events: TrainingEvents,
    stop: StopFlag,
) -> Outcome:
    """Train on several devices at once; blocks until all ranks have ended.

    Args:
        base_config: recipe.
        overrides: plain values to put on top of it.
        devices: one for each rank: "cuda:0", "cuda:2", ..., or "cpu" as often as wanted.
        events: told what the main rank tells.
        stop: ends the training at its next batch.

    Raises:
        RankError: naming the rank that failed first, and why.
        Exception: what `events` raised; the ranks have stopped and saved then.
    """
    folder = Path(tempfile.mkdtemp(prefix="ranks-"))
    task = folder / "task.json"
    address = str(folder / "main_rank")
    values = {"config": str(base_config), "overrides": dict(overrides), "devices": list(devices)}
    task.write_text(json.dumps({**values, "address": address}))
    try:
        with Follower(address, events, stop) as follower:
            logger.info("Training on %d devices: %s", len(devices), ", ".join(devices))
            launch = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=len(devices),
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                run_id=folder.name,
                local_addr="localhost",
                max_restarts=0,  # a relaunched task goes on by itself; an error would come again
                logs_specs=DefaultLogsSpecs(log_dir=str(folder)),
            )
            try:
                elastic_launch(launch, sys.executable)("-m", RANK, str(task))
            except ChildFailedError as error:
                raise RankError(_first_failure(error, devices)) from error
        if follower.error is not None:
            raise follower.error
        if follower.outcome is None:
            raise RankError("the main rank ended without a result; see its lines above")
        return follower.outcome
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
        return f"ended by {failure.signal_name()}, often for lack of memory"
    return f"ended with exit code {failure.exitcode}; see its lines above"


class Follower:
    """The app's end of the connection with the main rank.

    Args:
        address: of a socket to make.
        events: told what the main rank tells, in a thread of this object.
        stop: passed on.
    """

    def __init__(self, address: str, events: TrainingEvents, stop: StopFlag) -> None:
        self.outcome: Outcome | None = None
        self.error: Exception | None = None  # the first that `events` raised
        self._address = address
        self._events = events
        self._stop = stop
        self._is_over = threading.Event()
        self._has_come = threading.Event()
        self._listener = Listener(address, family="AF_UNIX")
        self._thread = threading.Thread(target=self._follow, name="main rank", daemon=True)

    def __enter__(self) -> "Follower":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        if not self._has_come.is_set():  # nobody will: let the thread go
            Client(self._address, family="AF_UNIX").close()
        self._thread.join(_DRAIN_S)
        self._listener.close()

    def _follow(self) -> None:
        with self._listener.accept() as connection:
            self._has_come.set()
            is_told = False
            try:
                while True:
                    if self._stop.is_set and not is_told:
                        connection.send(self._stop.reason)
                        is_told = True
                    if connection.poll(_POLL_S):
                        self._take(*connection.recv())
            except (EOFError, OSError) as error:
                logger.debug("the main rank has left: %r", error)

    def _take(self, kind: str, content: Any) -> None:
        if kind == "event":
            self._tell(*content)
        elif kind == "log":
            logging.getLogger(content.name).handle(content)
        else:
            self.outcome = Outcome(*content)

    def _tell(self, name: str, arguments: tuple[Any, ...]) -> None:
        try:
            getattr(self._events, name)(*arguments)
        except Exception as error:  # noqa: BLE001 (raised again once the ranks have ended)
            self.error = self.error or error
            self._stop.request(f"the app cannot follow: {error!r}")
