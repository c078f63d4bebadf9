"""Download of images by URL; for clients of a server from public addresses only.

A server that downloads any URL lets its clients reach what only the server can reach: its own
machine, its network, and the metadata service of a cloud.
"""

import io
import ipaddress
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.util.connection import create_connection

from ...misc.errors import ConfigError, DatasetError
from ...misc.text import printable

NETWORKS_SETTING = "RTDETR_URL_NETWORKS"  # environment variable
MAX_BYTES = 100 * 2**20
TIME_LIMIT_S = 30.0  # of the whole download, without the lookup of the name

_IDLE_LIMIT_S = 10.0
_MAX_REDIRECTS = 5
_MAX_SHOWN = 200  # characters of a URL in an error
_CHUNK_BYTES = 2**16
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def download_image(
    url: Any, *, time_limit_s: float = TIME_LIMIT_S, only_public: bool = True
) -> io.BytesIO:
    """Download a file over HTTP or HTTPS, directly and not through a proxy.

    Args:
        url: of the file; any JSON value of a request.
        time_limit_s: of the whole download.
        only_public: whether to check the address with `is_allowed`. False for a URL that the user
            of this machine gives.

    Raises:
        DatasetError: naming the URL, if it is not a URL, its address is not allowed, or the
            download fails, is too large or too slow.
    """
    shown = shown_url(url)
    if not isinstance(url, str) or not url.lower().startswith(("http://", "https://")):
        raise DatasetError(f"image_url = {shown}: give an address that starts with http or https")
    try:
        with _Connections(time_limit_s, only_public=only_public) as pools:
            return _read(pools, url)
    except TimeoutError as error:
        raise DatasetError(
            f"{shown}: was not downloaded within {time_limit_s:g} s; download it first"
        ) from error
    except (HTTPError, OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) else error
        raise DatasetError(
            f"{shown}: cannot be downloaded ({reason}); check the address"
        ) from error


def shown_url(url: Any) -> str:
    """Return a URL for messages: shortened, without control characters."""
    text = printable(url if isinstance(url, str) else repr(url))
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _read(pools: urllib3.PoolManager, url: str) -> io.BytesIO:
    retries = urllib3.Retry(
        total=_MAX_REDIRECTS, connect=0, read=0, status=0, other=0, redirect=_MAX_REDIRECTS
    )
    response = pools.request("GET", url, preload_content=False, retries=retries)
    if response.status != 200:
        raise ValueError(f"status {response.status}")
    content = io.BytesIO()
    for chunk in response.stream(_CHUNK_BYTES):
        content.write(chunk)
        if content.tell() > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    return content


class _Connections:
    """Connections to allowed addresses, which end at a time limit.

    The limits of sockets are for each packet only: a slow server could keep a request for hours.

    Args:
        time_limit_s: after which they are closed.
        only_public: whether to check the addresses.
    """

    def __init__(self, time_limit_s: float, *, only_public: bool) -> None:
        self._only_public = only_public
        self._sockets: list[socket.socket] = []
        self._is_over = threading.Event()
        self._timer = threading.Timer(time_limit_s, self._end)
        self._timer.daemon = True
        self.pools = _pools_with(self._connect)

    def __enter__(self) -> urllib3.PoolManager:
        self._timer.start()
        return self.pools

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._timer.cancel()
        self.pools.clear()
        for each in self._sockets:
            each.close()
        if self._is_over.is_set():
            raise TimeoutError from error

    def _connect(self, connection: HTTPConnection) -> socket.socket:
        address = connection.host
        if self._only_public:
            address = _allowed_address(address, connection.port)
        opened = create_connection((address, connection.port), _IDLE_LIMIT_S)
        self._sockets.append(opened.dup())  # TLS detaches the original
        if self._is_over.is_set():
            self._end()
        return opened

    def _end(self) -> None:
        self._is_over.set()
        for each in self._sockets:
            with suppress(OSError):  # closed already
                each.shutdown(socket.SHUT_RDWR)


def _pools_with(connect: Callable[[HTTPConnection], socket.socket]) -> urllib3.PoolManager:
    """Return pools for http and https only, that connect with this function."""

    class Connection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return connect(self)

    class TlsConnection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return connect(self)

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = TlsConnection

    pools = urllib3.PoolManager(timeout=_IDLE_LIMIT_S)
    pools.pool_classes_by_scheme = {"http": Pool, "https": TlsPool}
    return pools


def _allowed_address(host: str, port: int) -> str:
    """Return the address of a host, which the connection then uses.

    Raises:
        ValueError: if one of its addresses is not allowed.
    """
    host = host.strip("[]").rstrip(".")
    found = [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for text in found:
        address = ipaddress.ip_address(text.partition("%")[0])
        if not is_allowed(address):
            raise ValueError(
                f"{host} has the address {text}, which is not public; allow its network with "
                f"{NETWORKS_SETTING}={address}"
            )
    return found[0]


def is_allowed(address: Address) -> bool:
    """Return whether images may be downloaded from an address: public, or allowed by the setting.

    IPv6 addresses that stand for an IPv4 address count as that one.

    Raises:
        ConfigError: if the setting is invalid.
    """
    inner = _inner_address(address)
    if any(each.version == inner.version and inner in each for each in _allowed_networks()):
        return True
    return inner.is_global and not inner.is_multicast


def _inner_address(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)


def _allowed_networks() -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    text = os.environ.get(NETWORKS_SETTING, "")
    try:
        return [ipaddress.ip_network(each.strip()) for each in text.split(",") if each.strip()]
    except ValueError as error:
        raise ConfigError(
            f"{NETWORKS_SETTING} = {text!r}: give networks such as 10.0.0.0/8, separated by commas"
        ) from error
