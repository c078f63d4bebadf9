"""A running instance: emulator, page, address and token."""

import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from starlette.types import ASGIApp

from .emulator.authorization import instance_token
from .emulator.server import create_app
from .emulator.store import Store
from .page.routes import router as page_router

if TYPE_CHECKING:
    import supervisely as sly

LOOPBACK = "127.0.0.1"
_STOP_TIMEOUT_S = 10


class LocalInstance:
    """A Supervisely instance for one machine.

    As a context manager it serves in a thread of this process:

        with LocalInstance(Path("app_data/instance")) as instance:
            instance.api().project.get_list(1)

    Args:
        root: data folder; created if it does not exist.
        host: to listen on; other machines can reach any address but the loopback.
        port: to listen on; 0 uses a free one.
        token: that every request must send; default: `API_TOKEN`, else the one in the root.
    """

    def __init__(
        self, root: Path, host: str = LOOPBACK, port: int = 0, token: str | None = None
    ) -> None:
        self.store = Store(root)
        self.host = host
        self.token = token or instance_token(self.store.root)
        self._wanted_port = port
        self.port: int | None = None  # that it listens on; None if it is not started
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """The `SERVER_ADDRESS` for clients on this machine."""
        host = LOOPBACK if self.host in ("0.0.0.0", "::", "") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def page_address(self) -> str:
        """The address to open in a browser; it includes the token."""
        return f"{self.address}/?token={self.token}"

    def api(self) -> "sly.Api":
        """Create an SDK client of this instance."""
        import supervisely as sly  # slow, and serving does not need it

        return sly.Api(self.address, self.token)

    def create_app(self) -> ASGIApp:
        """Create the ASGI application: the API and the page."""
        return create_app(self.store, self.token, [page_router])

    def bind(self) -> None:
        """Open the port, so that `address` is known.

        Raises:
            OSError: if the port is in use.
        """
        if self._socket is not None:
            return
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.host, self._wanted_port))
            listener.listen(128)
        except OSError:
            listener.close()
            raise
        self._socket = listener
        self.port = int(listener.getsockname()[1])
        config = uvicorn.Config(
            self.create_app(),
            log_config=None,  # the command configures logging
            log_level="warning",
            access_log=False,  # it would contain the token
            lifespan="off",
            # Longer than clients keep idle connections (httpx: 5 s), so that a client does not
            # reuse a connection at the moment when the server closes it.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_STOP_TIMEOUT_S,
        )
        self._server = uvicorn.Server(config)
        self.store.clean()

    def serve(self) -> None:
        """Serve in this thread until SIGINT or SIGTERM."""
        self.bind()
        assert self._server is not None
        assert self._socket is not None
        self._server.run(sockets=[self._socket])

    def start(self) -> None:
        """Serve in another thread; return when the port is open."""
        self.bind()
        self._thread = threading.Thread(target=self.serve, name="local-instance", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving; requests in flight have a few seconds to finish."""
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(_STOP_TIMEOUT_S + 5)
        if self._socket is not None:
            self._socket.close()
        self._socket = self.port = self._server = self._thread = None

    def __enter__(self) -> "LocalInstance":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
