"""`Trackers`: sends the events of a training to trackers, in threads."""

import importlib
import importlib.util
import json
import logging
import math
import queue
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ..core.yaml_config import YAMLConfig
from ..misc.errors import ConfigError
from ..misc.files import write_text
from ..misc.text import first_line, printable
from ..solver.checkpointing import BEST
from ..solver.events import EpochReport, FitResult, StepReport, TrainingEvents, TrainingPlan
from ..solver.observers import epoch_values, step_values
from ..solver.run import MODEL_CONFIG
from .tracker import RunInfo, Tracker

logger = logging.getLogger(__name__)

RUN_IDS = "trackers.json"  # in the output folder: tracker -> id of its run
_CLASSES = {
    "wandb": "wandb_tracker:WandbTracker",
    "mlflow": "mlflow_tracker:MlflowTracker",
    "clearml": "clearml_tracker:ClearmlTracker",
}
_FINISH_S = 300.0  # for the upload of the remaining values and files when the training ends


def check_installed(loggers: Sequence[str]) -> None:
    """Check that the packages of trackers are installed.

    Raises:
        ConfigError: naming the first package that is missing.
    """
    for name in loggers:
        if name in _CLASSES and importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"loggers = {list(loggers)}: the package {name} is not installed; install it with "
                f"pip install 'rtdetrv2[{name}]', or remove {name} from loggers"
            )


class Trackers(TrainingEvents):
    """Follows a training and sends it to the trackers of the setting `loggers`.

    Trackers run in threads of their own, so a slow network does not delay the training. A tracker
    that fails is disabled with one warning. Use it as a context manager around the training, which
    ends the runs; without a started training it does nothing.

    Args:
        cfg: configuration of the run.

    Raises:
        ConfigError: if a package is not installed.
    """

    def __init__(self, cfg: YAMLConfig) -> None:
        self._cfg = cfg
        self._names = [name for name in cfg.settings.loggers if name in _CLASSES]
        check_installed(self._names)
        self._senders: list[_Sender] = []

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for sender in self._senders:
            sender.finish(is_complete=error is None)
        for sender in self._senders:
            sender.wait(_FINISH_S)

    def train_started(self, plan: TrainingPlan) -> None:
        """Start the runs, or continue those of the resumed training."""
        folder, resumed = self._cfg.output_dir, self._cfg.settings.resume
        ids = _read_ids(Path(resumed).parent) if resumed else {}
        name = self._cfg.settings.run_name or folder.resolve().name
        started = _StartedRuns(folder, ids)
        for tracker in self._names:
            info = RunInfo(name, self._cfg.yaml_cfg, ids.get(tracker))
            self._senders.append(_Sender(tracker, folder, info, started))
        self._send("log_file", folder / MODEL_CONFIG, "configuration")

    def step_finished(self, report: StepReport) -> None:
        """Send losses and speed every `print_freq` steps."""
        if report.is_logged:
            self._log(step_values(report), "step", report.global_step)

    def epoch_finished(self, report: EpochReport) -> None:
        """Send the metrics, also per class."""
        self._log(epoch_values(report), "epoch", report.epoch + 1)

    def log_image(self, tag: str, path: Path, epoch: int) -> None:
        """Send an image of an epoch, which counts from 1; see `TrainingImages`."""
        self._send("log_image", tag, path, epoch)

    def log_results(self, result: FitResult, report: Path | None) -> None:
        """Send the best metrics, the best checkpoint and the report."""
        if result.best is not None:
            values = {f"best/{name}": value for name, value in result.best.stats.items()}
            self._log(values, "epoch", result.best_epoch + 1)
        if report is not None:
            self._send("log_file", report, "report")
        best = self._cfg.output_dir / BEST
        if best.is_file():
            self._send("log_file", best, "checkpoint")

    def _log(self, values: Mapping[str, float], axis: str, number: int) -> None:
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self._send("log", finite, axis, number)

    def _send(self, method: str, *arguments: Any) -> None:
        for sender in self._senders:
            sender.send(method, *arguments)


class _StartedRuns:
    """The ids of the runs of all trackers, in a file for a resume."""

    def __init__(self, folder: Path, ids: Mapping[str, str]) -> None:
        self._path = folder / RUN_IDS
        self._ids = dict(ids)
        self._lock = threading.Lock()

    def add(self, tracker: str, run_id: str) -> None:
        """Write the id of a run."""
        with self._lock:
            self._ids[tracker] = run_id
            write_text(self._path, json.dumps(self._ids, indent=1))


def _read_ids(folder: Path) -> dict[str, str]:
    try:
        ids = json.loads((folder / RUN_IDS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # trained without trackers, or damaged
    return {k: v for k, v in ids.items() if isinstance(v, str)} if isinstance(ids, dict) else {}


class _Sender:
    """Runs a tracker in a thread; its first error disables it.

    Args:
        name: of the tracker.
        folder: output folder of the training.
        info: see `RunInfo`.
        started: gets the id of the run.
    """

    def __init__(self, name: str, folder: Path, info: RunInfo, started: _StartedRuns) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[tuple[str, tuple[Any, ...], dict[str, Any]] | None] = (
            queue.SimpleQueue()
        )
        self._is_alive = True
        arguments = (folder, info, started)
        self._thread = threading.Thread(
            target=self._run, args=arguments, name=f"tracker-{name}", daemon=True
        )
        self._thread.start()

    def send(self, method: str, *arguments: Any, **options: Any) -> None:
        """Call a method of the tracker, later."""
        if self._is_alive:
            self._calls.put((method, arguments, options))

    def finish(self, *, is_complete: bool) -> None:
        """End the run after all calls so far."""
        self.send("finish", is_complete=is_complete)
        self._calls.put(None)

    def wait(self, timeout_s: float) -> None:
        """Wait for the end of the run."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._warn(f"no answer for {timeout_s:.0f} s; the end of this run is not stored")

    def _run(self, folder: Path, info: RunInfo, started: _StartedRuns) -> None:
        try:
            tracker = _open(self._name, folder)
            started.add(self._name, tracker.start(info))
            while (call := self._calls.get()) is not None:
                method, arguments, options = call
                getattr(tracker, method)(*arguments, **options)
        except (Exception, SystemExit) as error:  # noqa: BLE001 (any error of the package)
            self._is_alive = False
            self._warn(first_line(Exception(str(error) or type(error).__name__)))
            logger.debug("%s failed", self._name, exc_info=True)

    def _warn(self, reason: str) -> None:
        logger.warning("%s is disabled, training continues: %s", self._name, printable(reason))


def _open(name: str, folder: Path) -> Tracker:
    module, _, attribute = _CLASSES[name].partition(":")
    tracker: Tracker = getattr(importlib.import_module(f".{module}", __package__), attribute)(
        folder
    )
    return tracker
