"""JSON bodies: limits and checks before the SDK reads them."""

import json
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

MAX_JSON_BYTES = 16 * 2**20
_MAX_DEPTH = 64
_OBJECTS = ("state", "context")
_TEXTS = ("api_token", "server_address")


class BodyTooLargeError(Exception):
    """A body is larger than the limit."""


async def read_body(receive: Receive, limit: int = MAX_JSON_BYTES) -> bytes:
    """Read a body; stop at the limit.

    Raises:
        BodyTooLargeError: if it has more bytes.
        ClientDisconnect: if the client disconnects.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > limit:
            raise BodyTooLargeError
        if not message.get("more_body", False):
            return bytes(body)


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that yields a body that was read, and then what follows."""
    waiting = [body]

    async def receive_again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return receive_again


def body_problem(body: bytes) -> str | None:
    """Validate the JSON body of a request; returns an error message or None."""
    try:
        content = json.loads(body)
        # The app's state must be JSON again: no NaN, no half of a surrogate pair.
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        return f"the body has more than {_MAX_DEPTH} levels"
    except ValueError as error:
        return f"the body is not JSON ({error})"
    if not isinstance(content, dict):
        return f"the body is a {type(content).__name__}; send an object with a state"
    if _is_deep(content):
        return f"the body has more than {_MAX_DEPTH} levels"
    for key in _OBJECTS:
        if key in content and not isinstance(content[key], dict):
            return f"{key} is a {type(content[key]).__name__}; send an object"
    for key in _TEXTS:
        if not isinstance(content.get(key), str | None):
            return f"{key} is a {type(content[key]).__name__}; send a string"
    return None


def _is_deep(content: Any) -> bool:
    level = [content]
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for each in level
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True
