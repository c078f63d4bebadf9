"""An instance with injected faults: errors, lost responses, outages."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from supervisely_integration.local.emulator.public_api import error_response, method_of
from supervisely_integration.local.instance import LocalInstance


@dataclass(frozen=True)
class Fault:
    """One kind of fault, for some requests.

    Attributes:
        kind: "error": rejected with `status`; "lost": processed, but answered with `status`; "cut":
            the connection ends in the middle of the response; "slow": the response is delayed by
            `seconds`; "damage": one byte of the response is changed; "gone": the server does not
            listen for `seconds`.
        method: of the API, with wildcards.
        times: number of requests.
        seconds: of "slow" and "gone".
        status: of "error" and "lost".
    """

    kind: Literal["error", "lost", "cut", "slow", "damage", "gone"]
    method: str = "*"
    times: int = 1
    seconds: float = 1.0
    status: int = 503


class Faults:
    """Pending faults and the counts of injected faults; thread-safe.

    Args:
        faults: to begin with.
    """

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._left: list[tuple[Fault, int]] = []
        self.injected: Counter[str] = Counter()  # by "kind method"
        self.replace(faults)

    def replace(self, faults: Sequence[Fault]) -> None:
        """Drop the pending faults and use these."""
        with self._lock:
            self._left = [(fault, fault.times) for fault in faults]

    def take(self, method: str) -> Fault | None:
        """Return the fault for this request, and count it."""
        with self._lock:
            for index, (fault, times) in enumerate(self._left):
                if times and fnmatchcase(method, fault.method):
                    self._left[index] = (fault, times - 1)
                    self.injected[f"{fault.kind} {method}"] += 1
                    return fault
        return None


class FaultInjection:
    """ASGI middleware that injects faults.

    Args:
        app: the application behind it.
        faults: the faults to inject.
        go_offline: called with the duration of an outage in seconds.
    """

    def __init__(self, app: ASGIApp, faults: Faults, go_offline: Callable[[float], None]) -> None:
        self._app = app
        self._faults = faults
        self._go_offline = go_offline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = method_of(scope["path"])
        fault = self._faults.take(method)
        if fault is None:
            await self._app(scope, receive, send)
        elif fault.kind == "error":
            await _read_all(receive)
            await _error(fault, method)(scope, receive, send)
        elif fault.kind == "lost":
            await self._app(scope, receive, _discard)
            await _error(fault, method)(scope, receive, send)
        elif fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
            await self._app(scope, receive, send)
        elif fault.kind == "damage":
            await self._app(scope, receive, _Damaging(send))
        elif fault.kind == "cut":
            await self._app(scope, receive, _Cutting(send))
        else:
            self._go_offline(fault.seconds)


async def _read_all(receive: Receive) -> None:
    """Read the whole body: a sending client would get a broken connection instead of a response."""
    while (await receive()).get("more_body"):
        pass


async def _discard(message: Message) -> None:
    pass


def _error(fault: Fault, method: str) -> Response:
    return error_response(fault.status, f"{method}: injected fault")


class _Damaging:
    """Changes a byte of the first chunk that is not the head of a part."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_done = False

    async def __call__(self, message: Message) -> None:
        body = message.get("body", b"")
        if body and not body.startswith(b"--") and not self._is_done:
            self._is_done = True
            middle = len(body) // 2
            changed = body[:middle] + bytes([body[middle] ^ 0xFF]) + body[middle + 1 :]
            message = {**message, "body": changed}
        await self._send(message)


class _Cutting:
    """Sends half of the first chunk; uvicorn closes the connection of an incomplete response."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_done = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._send(message)
        elif not self._is_done:
            self._is_done = True
            body = message.get("body", b"")
            await self._send({**message, "body": body[: len(body) // 2], "more_body": True})


class FaultyInstance(LocalInstance):
    """An instance that injects `faults` into its responses.

    Args:
        root: data folder.
        faults: to begin with; `faults.replace` changes them while it runs.
    """

    def __init__(self, root: Path, faults: Sequence[Fault] = ()) -> None:
        super().__init__(root)
        self.faults = Faults(faults)
        self._gone_s: float | None = None
        self._is_stopping = threading.Event()

    def create_app(self) -> ASGIApp:
        return FaultInjection(super().create_app(), self.faults, self._go_offline)

    def serve(self) -> None:
        while True:
            super().serve()
            if self._gone_s is None:
                return
            seconds, self._gone_s = self._gone_s, None
            self._wanted_port = self.port  # clients come back to the same port
            assert self._socket is not None
            self._socket.close()
            if self._is_stopping.wait(seconds):
                return
            self._socket = None

    def _go_offline(self, seconds: float) -> None:
        """Drop all connections and stop listening; runs in the server's thread."""
        assert self._server is not None
        self._gone_s = seconds
        self._server.should_exit = self._server.force_exit = True
        for listener in self._server.servers:
            listener.close()
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()

    def stop(self) -> None:
        self._is_stopping.set()
        super().stop()
        self._is_stopping.clear()
