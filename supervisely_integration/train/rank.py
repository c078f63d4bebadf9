"""One rank of a training on several devices: `python -m supervisely_integration.train.rank TASK`.

The main rank tells the app what happens; the others warn on their output, which is the app's.
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
from rtdetrv2_pytorch.src.misc import distributed
from rtdetrv2_pytorch.src.misc.errors import RTDETRError
from rtdetrv2_pytorch.src.report.training_images import TrainingImages
from rtdetrv2_pytorch.src.report.training_report import write_report_of
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver.events import EventRelay, FanOut
from rtdetrv2_pytorch.src.solver.stopping import StopFlag

logger = logging.getLogger(__name__)


class AppLink:
    """The main rank's end of the connection with the app; sends from any thread.

    Args:
        address: of the app's socket.
        stop: set when the app says so, or is gone.
    """

    def __init__(self, address: str, stop: StopFlag) -> None:
        self._connection: Connection = Client(address, family="AF_UNIX")
        self._lock = threading.Lock()
        self._stop = stop
        threading.Thread(target=self._listen, name="app", daemon=True).start()

    def send(self, kind: str, content: Any) -> None:
        """Send; an app that is gone hears nothing, and the training ends."""
        try:
            with self._lock:
                self._connection.send((kind, content))
        except OSError:
            self._stop.request("the app is gone")

    def send_event(self, name: str, *arguments: Any) -> None:
        """Send a training event: the name of the method and its arguments."""
        self.send("event", (name, arguments))

    def _listen(self) -> None:
        try:
            self._stop.request(str(self._connection.recv()))
        except (EOFError, OSError):
            self._stop.request("the app is gone")


class LogRelay(QueueHandler):
    """Hands the log to the app, whose page shows it.

    Args:
        link: to the app.
    """

    def __init__(self, link: AppLink) -> None:
        super().__init__(queue=None)  # type: ignore[arg-type]
        self._link = link

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send the record, whose arguments are text by now."""
        self._link.send("log", record)


def use_devices(devices: list[str]) -> str:
    """Let this process see the chosen GPUs only, in this order; before anything looks for them.

    Returns:
        The kind of the devices.
    """
    if devices[0] == "cpu":
        return "cpu"
    here = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    known = here.split(",") if here else None
    places = [int(device.partition(":")[2] or 0) for device in devices]
    chosen = [known[place] if known else str(place) for place in places]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
    return "cuda"


def main(task_file: str) -> int:
    """Train as one of several; returns the exit status."""
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
        cfg = YAMLConfig(task["config"], **{**task["overrides"], "device": device})
        followers = FanOut([TrainingImages(cfg), *events])
        result = DetSolver(cfg, events=followers, stop_flag=stop).fit()
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
