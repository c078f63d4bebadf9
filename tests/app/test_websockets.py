"""Pages that are closed while the app sends to them."""

import asyncio
import inspect

import pytest
from fastapi import WebSocketDisconnect

from tests.sdk import import_sdk

import_sdk()

from supervisely.app.fastapi.websocket import WebsocketManager  # noqa: E402

from supervisely_integration.sdk.websockets import drop_closed_connections  # noqa: E402


class Page:
    """The app's end of a connection."""

    query_params: dict = {}
    headers: dict = {}

    def __init__(self, error=None):
        self.error = error
        self.received = []

    async def accept(self):
        pass

    async def send_json(self, content, mode="text"):
        if self.error is not None:
            raise self.error
        self.received.append(content)


@pytest.fixture
def manager(monkeypatch):
    # Another test in this process may have patched it.
    monkeypatch.setattr(WebsocketManager, "connect", inspect.unwrap(WebsocketManager.connect))
    manager = object.__new__(WebsocketManager)  # not the shared instance
    WebsocketManager.__init__(manager)
    return manager


CLOSED = [
    WebSocketDisconnect(1006),
    RuntimeError('Cannot call "send"'),
]


async def send(manager, *pages):
    for page in pages:
        await manager.connect(page)
    await manager.broadcast({"data": 1})
    await manager.broadcast({"data": 2})


@pytest.mark.parametrize("error", CLOSED)
def test_sdk_raises_in_the_sender(manager, error):
    with pytest.raises(type(error)):
        asyncio.run(send(manager, Page(error)))


@pytest.mark.parametrize("error", CLOSED)
def test_closed_page_is_dropped_and_others_receive(manager, error):
    drop_closed_connections()
    drop_closed_connections()  # as both apps of a process do
    first, closed, last = Page(), Page(error), Page()
    asyncio.run(send(manager, first, closed, last))
    assert first.received == last.received == [{"data": 1}, {"data": 2}]
    assert manager.active_connections == [first, last]


def test_other_errors_are_raised(manager):
    drop_closed_connections()
    with pytest.raises(TypeError, match="no JSON"):
        asyncio.run(send(manager, Page(TypeError("no JSON"))))
