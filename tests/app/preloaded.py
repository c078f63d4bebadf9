"""Starts apps by forking a process that has imported torch, the SDK and the engine.

That takes 8 seconds, so all test processes of a session share it. The modules of the apps
themselves are imported by each app.
"""

import contextlib
import functools
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock

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
    """A connection to the preloaded process, which ends after the last connection.

    Args:
        address: path of its socket; the first test process that needs it starts it.
    """

    def __init__(self, address: Path) -> None:
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX)
        with FileLock(f"{address}.lock"):
            try:
                self._socket.connect(str(address))
            except OSError:  # not started, or it has ended
                _start(address)
                self._socket.connect(str(address))
        self._answers = self._socket.makefile()

    def ask(self, **request: Any) -> Any:
        """Send a request; return the answer."""
        with self._lock:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
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
    """Return the connection of this test process."""
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    return Server(Path(tempfile.gettempdir(), f"rtdetrv2-{session}.sock"))


def _start(address: Path) -> None:
    """Start the process; connections wait until it has imported everything."""
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        subprocess.Popen(
            [sys.executable, "-m", __name__, str(listener.fileno()), str(address)],
            cwd=ROOT,
            env={**os.environ, "SUPERVISELY_SKIP_HTTPS_USER_HELPER_CHECK": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )


def _serve(listener: socket.socket) -> dict[str, Any] | None:
    """Answer requests; return the request to run in a child, None in the server at its end."""
    with ExitStack() as stack:
        stack.enter_context(listener)
        selector = stack.enter_context(selectors.DefaultSelector())
        selector.register(listener, selectors.EVENT_READ)
        connections: set[TextIO] = set()
        timeout: float | None = None
        while ready := selector.select(timeout):
            for key, _ in ready:
                stream = key.data
                if stream is None:
                    connection, _ = listener.accept()
                    with connection:  # stays open until the stream is closed
                        stream = stack.enter_context(connection.makefile("rw"))
                        selector.register(connection.fileno(), selectors.EVENT_READ, stream)
                    connections.add(stream)
                elif line := stream.readline():
                    request = json.loads(line)
                    answer = _answer(request)
                    if answer == 0 and "poll" not in request:
                        return request
                    stream.write(json.dumps(answer) + "\n")
                    stream.flush()
                else:
                    selector.unregister(key.fd)
                    stream.close()
                    connections.remove(stream)
            timeout = None if connections else 0.0
    return None


def _answer(request: dict[str, Any]) -> int | None:
    """Return the exit code of a child, None while it runs; or fork and return the process id."""
    if "poll" not in request:
        return os.fork()
    pid, status = os.waitpid(request["poll"], os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if pid else None


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
    wanted = _serve(socket.socket(fileno=int(sys.argv[1])))
    if wanted is None:
        for name in (sys.argv[2], f"{sys.argv[2]}.lock"):
            Path(name).unlink(missing_ok=True)
    else:
        _become(wanted)
        runpy.run_module(wanted["module"], run_name="__main__", alter_sys=True)
