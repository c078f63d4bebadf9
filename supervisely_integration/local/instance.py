"""An instance that runs: server, address and token together."""

import logging
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from .emulator.authorization import instance_token
from .emulator.faults import Fault, Faults
from .emulator.server import create_app
from .emulator.store import Store
from .page.routes import router as page_router

if TYPE_CHECKING:
    import supervisely as sly

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
_STOP_TIMEOUT_S = 10


class LocalInstance:
    """A Supervisely instance for one machine.

    As a context manager it serves in a thread of this process:

        with LocalInstance(Path("app_data/instance")) as instance:
            instance.api().project.get_list(1)

    Args:
        root: folder of its data; made if it does not exist.
        host: to listen on; anything but the loopback can be reached from other machines.
        port: to listen on; 0 takes a free one.
        token: every call has to bring it; default: `API_TOKEN`, else the one in the root.
        faults: that happen on purpose; `faults.replace` changes them while it runs.
    """

    def __init__(
        self,
        root: Path,
        host: str = LOOPBACK,
        port: int = 0,
        token: str | None = None,
        faults: Sequence[Fault] = (),
    ) -> None:
        self.store = Store(root)
        self.host = host
        self.token = token or instance_token(self.store.root)
        self.faults = Faults(faults)
        self._wanted_port = port
        self._gone_s: float | None = None  # how long nobody is to listen
        self._is_stopping = threading.Event()
        self._port: int | None = None
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """What it listens on.

        Raises:
            RuntimeError: if it has not been started.
        """
        if self._port is None:
            raise RuntimeError("the instance has not been started")
        return self._port

    @property
    def address(self) -> str:
        """What `SERVER_ADDRESS` has to be on this machine."""
        host = LOOPBACK if self.host in ("0.0.0.0", "::", "") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def page_address(self) -> str:
        """What to open in a browser; it hands the token over."""
        return f"{self.address}/?token={self.token}"

    def api(self) -> "sly.Api":
        """The SDK's client of this instance."""
        import supervisely as sly  # takes seconds, and serving does not need it

        return sly.Api(self.address, self.token)

    def bind(self) -> None:
        """Take the port, so that `address` is known.

        Raises:
            OSError: if the port is taken.
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
        self._port = int(listener.getsockname()[1])
        config = uvicorn.Config(
            create_app(self.store, self.token, self.faults, self._go, [page_router]),
            log_config=None,  # whoever runs it decides where its lines go
            log_level="warning",
            access_log=False,  # it would show the token
            lifespan="off",
            # Longer than clients keep idle connections (httpx: 5 s): else both may give one up and
            # take it up again at the same moment.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_STOP_TIMEOUT_S,
        )
        self._server = uvicorn.Server(config)
        self.store.clean()

    def serve(self) -> None:
        """Serve in this thread until SIGINT or SIGTERM."""
        while True:
            self.bind()
            assert self._server is not None
            assert self._socket is not None
            self._server.run(sockets=[self._socket])
            if self._gone_s is None:
                return
            seconds, self._gone_s = self._gone_s, None
            self._wanted_port = self.port  # clients come back to where it was
            self._socket.close()
            if self._is_stopping.wait(seconds):
                return
            self._socket = None

    def _go(self, seconds: float) -> None:
        """Drop all connections and listen to nobody for a while, in the thread that serves."""
        assert self._server is not None
        self._gone_s = seconds
        self._server.should_exit = self._server.force_exit = True
        for listener in self._server.servers:
            listener.close()
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()  # type: ignore[attr-defined]

    def start(self) -> None:
        """Serve in another thread; returns when it answers."""
        self.bind()
        self._thread = threading.Thread(target=self.serve, name="local-instance", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it; requests in flight have a few seconds."""
        self._is_stopping.set()
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(_STOP_TIMEOUT_S + 5)
        if self._socket is not None:
            self._socket.close()
        self._socket = self._port = self._server = self._thread = None
        self._is_stopping.clear()

    def __enter__(self) -> "LocalInstance":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
