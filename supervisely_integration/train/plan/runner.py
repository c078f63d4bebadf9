"""Runs probes in processes of their own: the app keeps its random numbers, log and memory."""

import dataclasses
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable

from rtdetrv2_pytorch.src.misc.text import first_line
from rtdetrv2_pytorch.src.timing.estimates import Speed

from ...paths import ROOT
from .probe import ProbeTask

logger = logging.getLogger(__name__)

PROBE = "supervisely_integration.train.plan.probe"
_TIMEOUT_S = 240.0


class ProbeError(Exception):
    """The speed of a training could not be measured."""


class ProbeRunner:
    """Times trainings in the background, one at a time; a new request replaces the previous one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._request: object | None = None  # the current one
        self._probe: _Probe | None = None  # the latest one
        self._known: dict[str, Speed] = {}

    def request(
        self,
        make_task: Callable[[], ProbeTask],
        then: Callable[[Speed], None],
        failed: Callable[[str], None],
    ) -> None:
        """Start to time a training; returns immediately.

        Args:
            make_task: describes the training; called in a thread.
            then: called in that thread with the speed, unless the request is canceled.
            failed: called with the reason if the speed could not be measured.
        """
        request = self._request = object()

        def run() -> None:
            try:
                speed = self._speed_of(make_task(), request)
                if self._request is request:
                    then(speed)
            except Exception as error:  # noqa: BLE001 (any: training is possible without a time)
                if self._request is request:
                    logger.debug("The time could not be estimated", exc_info=True)
                    failed(first_line(error))

        threading.Thread(target=run, name="timing", daemon=True).start()

    def cancel(self) -> None:
        """End the current request and its process."""
        with self._lock:
            self._request = None
            if self._probe is not None:
                self._probe.kill()
                self._probe = None

    def _speed_of(self, task: ProbeTask, request: object) -> Speed:
        """Return the known or measured speed, also that of a process which runs already."""
        key = json.dumps(dataclasses.asdict(task))
        with self._lock:
            if self._request is not request:
                raise ProbeError("canceled")
            if key in self._known:
                return self._known[key]
            if self._probe is None or self._probe.key != key:
                if self._probe is not None:
                    self._probe.kill()
                self._probe = _Probe(key)
            probe = self._probe
        self._known[key] = speed = probe.result()
        return speed


class _Probe:
    """A process that times a training.

    Args:
        key: the task as JSON.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self._lock = threading.Lock()
        self._lines: list[str] | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-m", PROBE, key],
            cwd=ROOT,
            stdin=subprocess.PIPE,  # open as long as the app runs
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def kill(self) -> None:
        """End the process."""
        self._process.kill()

    def result(self) -> Speed:
        """Wait for the speed; may be called by several threads.

        Raises:
            ProbeError: if the process fails or is killed.
        """
        with self._lock:
            if self._lines is None:
                self._lines = self._read()
        result = json.loads(self._lines[-1]) if self._lines else {}
        if "compute_s" not in result:
            reason = f"the timing process ended with code {self._process.returncode}"
            raise ProbeError(result.get("error") or reason)
        return Speed(**result)

    def _read(self) -> list[str]:
        timer = threading.Timer(_TIMEOUT_S, self.kill)
        timer.daemon = True
        timer.start()
        with self._process as process:
            assert process.stdout is not None
            lines = process.stdout.read().splitlines()
        timer.cancel()
        return lines
