"""One rank of a training on multiple devices: `python -m supervisely_integration.train.rank TASK`.

The main rank sends events and logs to the app. The other ranks print warnings to the app's output.
"""

import json
import logging
import os
import sys
import threading
from logging.handlers import QueueHandler
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.error_places import naming_overrides
from rtdetrv2_pytorch.src.misc import distributed
from rtdetrv2_pytorch.src.misc.errors import RTDETRError
from rtdetrv2_pytorch.src.report.training_images import TrainingImages
from rtdetrv2_pytorch.src.report.training_report import write_report_of
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver.events import EventRelay, FanOut
from rtdetrv2_pytorch.src.solver.stopping import StopFlag

from .hyperparameters import NAME_IN_ERRORS

logger = logging.getLogger(__name__)


class AppLink:
    """The main rank's end of the connection with the app; sends from any thread.

    Args:
        address: of the app's socket.
        stop: set when the app requests it, or ends.
    """

    def __init__(self, address: str, stop: StopFlag) -> None:
        self._connection: Connection = Client(address, family="AF_UNIX")
        self._lock = threading.Lock()
        self._stop = stop
        threading.Thread(target=self._listen, name="app", daemon=True).start()

    def send(self, kind: str, content: Any) -> None:
        """Send a message; the training stops if the app has ended."""
        try:
            with self._lock:
                self._connection.send((kind, content))
        except OSError:
            self._stop.request("the app has ended")

    def send_event(self, name: str, *arguments: Any) -> None:
        """Send a training event: the name of the method and its arguments."""
        self.send("event", (name, arguments))

    def _listen(self) -> None:
        try:
            self._stop.request(str(self._connection.recv()))
        except (EOFError, OSError):
            self._stop.request("the app has ended")


class LogRelay(QueueHandler):
    """Sends log records to the app, whose page shows them.

    Args:
        link: to the app.
    """

    def __init__(self, link: AppLink) -> None:
        super().__init__(queue=None)  # type: ignore[arg-type]
        self._link = link

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send the record, whose arguments are formatted by now."""
        self._link.send("log", record)


def use_devices(devices: list[str]) -> str:
    """Restrict this process to these GPUs, in this order; call before CUDA is initialized.

    Returns:
        The device type.
    """
    if devices[0] == "cpu":
        return "cpu"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else None
    indices = [int(device.partition(":")[2] or 0) for device in devices]
    chosen = [names[index] if names else str(index) for index in indices]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
    return "cuda"


def main(task_file: str) -> int:
    """Train as one of several ranks; returns the exit code."""
    task = json.loads(Path(task_file).read_text())
    device = use_devices(task["devices"])
    stop, events = StopFlag(), []
    handler: logging.Handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    link = None
    if os.environ["RANK"] == "0":
        link = AppLink(task["address"], stop)
        events, handler = [EventRelay(link.send_event)], LogRelay(link)
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.handlers = [handler]
    try:
        with naming_overrides(NAME_IN_ERRORS):
            cfg = YAMLConfig(task["config"], **{**task["overrides"], "device": device})
            followers = FanOut([TrainingImages(cfg), *events])
            options = task["time_budget"]
            result = DetSolver(cfg, events=followers, stop_flag=stop, **options).fit()
        if link is not None:
            link.send("result", (result, cfg.yaml_cfg, write_report_of(cfg, result)))
    except Exception as error:
        reported = distributed.report_failure(error)
        if not isinstance(reported, RTDETRError):
            raise
        logger.error("rank %s: %s", os.environ["RANK"], reported)
        return 1
    finally:
        distributed.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
