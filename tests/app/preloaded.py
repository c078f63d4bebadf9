"""Starts apps by forking a process that has imported torch, the SDK and the engine.

That takes 8 seconds. The modules of the apps themselves are imported by each app.
"""

import contextlib
import functools
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).parents[2]


class ForkedProcess:
    """A child of the preloaded process, with the methods of `subprocess.Popen` that apps use."""

    def __init__(self, server: "Server", pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._server = server

    def poll(self) -> int | None:
        """Return the exit code, None while the process runs."""
        if self.returncode is None:
            self.returncode = self._server.ask(poll=self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit code."""
        deadline = time.monotonic() + (timeout or 600)
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 600)
            time.sleep(0.05)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


class Server:
    """The preloaded process; it ends with this one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        answers, theirs = os.pipe()
        self._answers = os.fdopen(answers)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs)],
            cwd=ROOT,
            env={**os.environ, "SUPERVISELY_SKIP_HTTPS_USER_HELPER_CHECK": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs],
            text=True,
            start_new_session=True,
        )
        os.close(theirs)

    def ask(self, **request: Any) -> Any:
        """Send a request; return the answer."""
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._answers.readline()
        assert answer, "the preloaded process has ended"
        return json.loads(answer)

    def start(
        self, module: str, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path
    ) -> ForkedProcess:
        """Run a module as a program in a session of its own, with its output in `log`."""
        pid = self.ask(
            module=module, arguments=[*arguments], cwd=str(cwd), env=dict(env), log=str(log)
        )
        return ForkedProcess(self, pid)


@functools.cache
def server() -> Server:
    """Return the server of this test process."""
    return Server()


def _serve(answers: BinaryIO) -> dict[str, Any] | None:
    """Answer requests; return the request to run in a child, None in the server at its end."""
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                answers.close()
                return request
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()
    return None


def _become(request: dict[str, Any]) -> None:
    """Turn a child into the requested process."""
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.path[0] = request["cwd"]
    sys.path.insert(1, str(ROOT))
    sys.argv = [request["module"], *request["arguments"]]


if __name__ == "__main__":
    import torch
    import torchvision  # noqa: F401

    with contextlib.suppress(ImportError):
        import pandas as pd  # noqa: F401
        import plotly.express  # noqa: F401
        import scipy.optimize  # noqa: F401
        import sklearn.calibration  # noqa: F401
    import supervisely
    import supervisely.nn.benchmark
    import supervisely.nn.inference
    import supervisely.nn.training  # noqa: F401

    import rtdetrv2_pytorch.src.deploy.export
    import rtdetrv2_pytorch.src.report.plots
    import rtdetrv2_pytorch.src.solver  # noqa: F401
    import tests.frozen  # noqa: F401

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    wanted = _serve(os.fdopen(int(sys.argv[1]), "wb"))
    if wanted is not None:
        _become(wanted)
        runpy.run_module(wanted["module"], run_name="__main__", alter_sys=True)
