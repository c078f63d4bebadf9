"""Faults on purpose: what networks and platforms do on bad days, to see how apps take it."""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .public_api import error_response, method_of
from .storage.errors import InvalidRequestError

logger = logging.getLogger(__name__)

FaultKind = Literal["error", "lost", "cut", "slow", "damage", "gone"]
KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
SWITCH = "local.faults"  # the method that switches them, which has none itself
_LONGEST_S = 600.0


@dataclass(frozen=True)
class Fault:
    """One kind of fault, for some requests.

    Attributes:
        kind: "error": refused with `status`; "lost": done, and refused with `status`; "cut": the
            connection ends in the middle of the answer; "slow": the answer comes `seconds` later;
            "damage": a byte of the answer is another one; "gone": nobody listens for `seconds`.
        method: of the API that it happens to; `*` stands for anything.
        times: how often.
        seconds: of "slow" and "gone".
        status: of "error" and "lost".

    Raises:
        InvalidRequestError: for values that make no sense.
    """

    kind: FaultKind
    method: str = "*"
    times: int = 1
    seconds: float = 1.0
    status: int = 503

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidRequestError(f"fault {self.kind!r}: there are {', '.join(KINDS)}")
        if self.times < 1 or not 0 <= self.seconds <= _LONGEST_S or not 400 <= self.status <= 599:
            raise InvalidRequestError(
                f"{self}: give times from 1, seconds from 0 to {_LONGEST_S:.0f}, status 400 to 599"
            )

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Read `kind[:method[:times[:seconds]]]`, as the command line has it.

        Raises:
            InvalidRequestError: if it is something else.
        """
        parts = text.split(":")
        try:
            kind, method, times, seconds = parts + [""] * (4 - len(parts))
            return cls(kind, method or "*", int(times or 1), float(seconds or 1))  # type: ignore[arg-type]
        except ValueError as error:
            raise InvalidRequestError(
                f"fault {text!r}: give kind:method:times:seconds, for example error:images.*:3"
            ) from error


class Faults:
    """Those that are still to happen, and a count of those that have; for any thread.

    Args:
        faults: to begin with.
    """

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._left: list[tuple[Fault, int]] = []
        self.injected: Counter[str] = Counter()  # by "kind method"
        self.replace(faults)

    def replace(self, faults: Sequence[Fault]) -> None:
        """Forget those that have not happened, and take these."""
        with self._lock:
            self._left = [(fault, fault.times) for fault in faults]

    def take(self, method: str) -> Fault | None:
        """The fault that happens to this request, counted."""
        with self._lock:
            for index, (fault, times) in enumerate(self._left):
                if times and fnmatchcase(method, fault.method):
                    self._left[index] = (fault, times - 1)
                    self.injected[f"{fault.kind} {method}"] += 1
                    return fault
        return None


class FaultInjection:
    """Lets faults happen to the requests that pass through.

    Args:
        app: the application behind it.
        faults: which.
        go: called with the seconds for which nobody is to listen.
    """

    def __init__(self, app: ASGIApp, faults: Faults, go: Callable[[float], None]) -> None:
        self._app = app
        self._faults = faults
        self._go = go

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or let something happen to it."""
        method = method_of(scope["path"])
        fault = self._faults.take(method) if method != SWITCH else None
        if fault is None:
            await self._app(scope, receive, send)
            return
        logger.info("fault=%s method=%s", fault.kind, method)
        if fault.kind == "error":
            await _read_all(receive)
            await _refusal(fault, method)(scope, receive, send)
        elif fault.kind == "lost":
            await self._app(scope, receive, _nowhere)
            await _refusal(fault, method)(scope, receive, send)
        elif fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
            await self._app(scope, receive, send)
        elif fault.kind == "damage":
            await self._app(scope, receive, _Damaging(send))
        elif fault.kind == "cut":
            await self._app(scope, receive, _Cutting(send))
        else:
            self._go(fault.seconds)


async def _read_all(receive: Receive) -> None:
    """A client that is still sending would see a broken connection and not the answer."""
    while (await receive()).get("more_body"):
        pass


async def _nowhere(message: Message) -> None:
    pass


def _refusal(fault: Fault, method: str) -> Response:
    return error_response(fault.status, f"{method}: a fault on purpose")


class _Damaging:
    """Changes the byte in the middle of the first piece of an answer that is no head of a part."""

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
    """Sends half of the first piece of an answer; what is missing ends the connection."""

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
