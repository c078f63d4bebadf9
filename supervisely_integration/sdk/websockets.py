"""A page that somebody closes, and what it was about to be told."""

import functools
import logging
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect
from supervisely.app.fastapi.websocket import WebsocketManager

logger = logging.getLogger(__name__)


def survive_closed_pages() -> None:
    """Not in the list: who tells something to a page that has just gone gets its error.

    That may be a bar which a training moves. Here such a page is forgotten; the others are told.
    """
    original = WebsocketManager.connect
    if getattr(original, "survives_closed_pages", False):
        return

    @functools.wraps(original)
    async def connect(self: WebsocketManager, websocket: WebSocket) -> None:
        send = websocket.send_json

        async def send_json(data: Any, mode: str = "text") -> None:
            try:
                await send(data, mode)
            except (WebSocketDisconnect, RuntimeError) as error:  # gone, or about to be
                logger.debug("a page has gone: %r", error)
                self.disconnect(websocket)

        websocket.send_json = send_json  # type: ignore[method-assign]
        await original(self, websocket)

    connect.survives_closed_pages = True  # type: ignore[attr-defined]
    WebsocketManager.connect = connect
