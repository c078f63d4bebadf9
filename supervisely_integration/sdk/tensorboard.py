"""TensorBoard, which the SDK starts by its bare name and before it is opened."""

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from supervisely import logger

from ..access.guard import error_answer

_PATH = "/tensorboard/{path:path}"  # as in `TrainApp._register_routes`
_METHODS = ("GET", "POST")
_STARTUP_S = 60.0


def add_executables_to_path() -> None:
    """Add the folder of this Python's executables to PATH.

    `TrainApp._init_tensorboard` (supervisely/nn/training/train_app.py) starts `tensorboard`, which
    is not on PATH unless the virtual environment is activated.
    """
    folder = str(Path(sys.executable).parent)
    if folder not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join((folder, os.environ.get("PATH", "")))


def start_when_opened(server: FastAPI, start: Callable[[int], None]) -> None:
    """Start TensorBoard at the first request to its path, which the SDK forwards to it.

    In a training that ends without such a request, it takes no memory and CPU time.

    Args:
        server: of the app.
        start: starts TensorBoard on a port and adds the SDK's routes; raises OSError.
    """
    routes = server.router.routes
    for route in [each for each in routes if isinstance(getattr(each, "endpoint", None), _Starter)]:
        routes.remove(route)  # of an earlier training, if it was not opened
    starter = _Starter(server, start)
    # The SDK's routes are added at the end, so that this one answers first.
    starter.route = Route(_PATH, starter, methods=_METHODS)
    routes.append(starter.route)


class _Starter:
    """ASGI application that starts TensorBoard and leaves its path to the routes of the SDK."""

    route: Route

    def __init__(self, server: FastAPI, start: Callable[[int], None]) -> None:
        self._server = server
        self._start = start
        self._lock = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the first requests."""
        async with self._lock:
            if self.route in self._server.router.routes:
                try:
                    await run_in_threadpool(self._start_and_wait)
                except OSError as error:
                    logger.warning("TensorBoard could not be started: %s", error)
                    answer = error_answer(503, f"TensorBoard could not be started: {error}")
                    await answer(scope, receive, send)
                    return
                self._server.router.routes.remove(self.route)
        await self._server.router(scope, receive, send)

    def _start_and_wait(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._start(port)
        deadline = time.monotonic() + _STARTUP_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError as error:
                if time.monotonic() > deadline:
                    raise OSError(f"no answer on port {port} within {_STARTUP_S:.0f} s") from error
                time.sleep(0.1)
            else:
                return
