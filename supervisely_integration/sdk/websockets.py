"""Connections of the app's page that close while the app sends to them."""

import functools
import logging
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect
from supervisely.app.fastapi.websocket import WebsocketManager

logger = logging.getLogger(__name__)


def drop_closed_connections() -> None:
    """Remove a closed connection instead of raising; patches `WebsocketManager.connect`.

    `WebsocketManager.broadcast` (supervisely/app/fastapi/websocket.py) raises in the code that
    changed a widget when one page has just been closed. That code may be a training loop that
    updates its progress bar.
    """
    original = WebsocketManager.connect
    if getattr(original, "drops_closed_connections", False):
        return

    @functools.wraps(original)
    async def connect(self: WebsocketManager, websocket: WebSocket) -> None:
        send = websocket.send_json

        async def send_json(data: Any, mode: str = "text") -> None:
            try:
                await send(data, mode)
            except (WebSocketDisconnect, RuntimeError) as error:  # closed, or closing
                logger.debug("page connection closed: %r", error)
                self.disconnect(websocket)

        websocket.send_json = send_json  # type: ignore[method-assign]
        await original(self, websocket)

    connect.drops_closed_connections = True  # type: ignore[attr-defined]
    WebsocketManager.connect = connect
