"""Pages come and go while an app tells them what has changed."""

import asyncio
import inspect

import pytest
from fastapi import WebSocketDisconnect

from tests.sdk import import_sdk

import_sdk()

from supervisely.app.fastapi.websocket import WebsocketManager  # noqa: E402

from supervisely_integration.sdk.websockets import survive_closed_pages  # noqa: E402


class Page:
    """The app's end of a connection."""

    query_params: dict = {}
    headers: dict = {}

    def __init__(self, error=None):
        self.error = error
        self.told = []

    async def accept(self):
        pass

    async def send_json(self, content, mode="text"):
        if self.error is not None:
            raise self.error
        self.told.append(content)


@pytest.fixture
def manager(monkeypatch):
    # Another test of this process may have replaced it; it is put back.
    monkeypatch.setattr(WebsocketManager, "connect", inspect.unwrap(WebsocketManager.connect))
    manager = object.__new__(WebsocketManager)  # not the one of the process
    WebsocketManager.__init__(manager)
    return manager


GONE = [WebSocketDisconnect(1006), RuntimeError('Cannot call "send" once a close message has been')]


async def tell(manager, *pages):
    for page in pages:
        await manager.connect(page)
    await manager.broadcast({"data": 1})
    await manager.broadcast({"data": 2})


@pytest.mark.parametrize("error", GONE)
def test_the_bare_sdk_hands_the_error_to_whoever_tells(manager, error):
    with pytest.raises(type(error)):
        asyncio.run(tell(manager, Page(error)))


@pytest.mark.parametrize("error", GONE)
def test_a_page_that_has_gone_is_forgotten_and_the_others_are_told(manager, error):
    survive_closed_pages()
    survive_closed_pages()  # both apps of a process ask for it
    first, gone, last = Page(), Page(error), Page()
    asyncio.run(tell(manager, first, gone, last))
    assert first.told == last.told == [{"data": 1}, {"data": 2}]
    assert manager.active_connections == [first, last]


def test_other_errors_are_not_kept_silent(manager):
    survive_closed_pages()
    with pytest.raises(TypeError, match="no JSON"):
        asyncio.run(tell(manager, Page(TypeError("no JSON"))))
