"""One policy for the requests to both apps; `docs/decisions/0021` explains it."""

import hashlib
import hmac
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from .hosts import authority_of, host_of, is_ip_address, is_local

ALLOWED_HOSTS = "APP_ALLOWED_HOSTS"
DEBUG = "APP_DEBUG"
# Folders that StaticFiles serves. That of the SDK's CSS is its whole package.
STATIC_FOLDERS = ("/sly/css/", "/static/", "/gui/web/", "/gui/packages/")
_STATIC_TYPES = frozenset(
    (".css", ".js", ".mjs", ".map", ".svg", ".png", ".jpg", ".jpeg", ".gif", ".ico", ".webp")
    + (".woff", ".woff2", ".ttf", ".eot", ".otf")
)
# Documents whose scripts use page routes; they set the cookie.
DOCUMENTS = ("/", "/try")
_PAGE_FOLDERS = ("/sly/", "/sly-app-ws", "/gui/")
_READING = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Refusal:
    """Status and message for a request that does not reach the app."""

    status: int
    message: str


@dataclass(frozen=True, kw_only=True)
class AccessPolicy:
    """Decides which requests reach an app.

    Args:
        is_behind_platform: whether a platform's proxy authenticates users and forwards their
            requests. It chooses the Host, so any Host is allowed.
        platform: host of the platform, whose pages may send requests.
        hosts: further names of this machine.
        page_token: cookie that the app's page receives, and that its routes require.
        has_debugger: whether `/debug` exists.
        path_prefix: of the routes, if the platform sets one.
        is_widget: whether a name is the id of a widget of the page.
    """

    is_behind_platform: bool = False
    platform: str = ""
    hosts: frozenset[str] = frozenset()
    page_token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    has_debugger: bool = False
    path_prefix: str = ""
    is_widget: Callable[[str], bool] = lambda name: False

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str], is_widget: Callable[[str], bool]
    ) -> "AccessPolicy":
        """Read the policy of an app from the variables that the platform or the user sets."""
        address = environment.get("SERVER_ADDRESS", "")
        is_deployed = environment.get("ENV") == "production" or "DEBUG_WITH_SLY_NET" in environment
        names = {name.strip().lower() for name in environment.get(ALLOWED_HOSTS, "").split(",")}
        prefix = environment.get("SUPERVISELY_SERVER_PATH_PREFIX", "").strip("/")
        key = environment.get("API_TOKEN") or secrets.token_urlsafe(32)
        return cls(
            is_behind_platform=is_deployed and bool(address) and not is_local(address),
            platform=host_of(address),
            hosts=frozenset(names - {""} | {socket.gethostname().lower()}),
            # The same after a restart of the app, whose page stays open.
            page_token=hmac.new(key.encode(), b"page of the app", hashlib.sha256).hexdigest(),
            has_debugger=environment.get(DEBUG, "").lower() in ("1", "true"),
            path_prefix=f"/{prefix}" if prefix else "",
            is_widget=is_widget,
        )

    def refusal(self, connection: HTTPConnection) -> Refusal | None:
        """Return why a request or WebSocket is refused, or None if it is allowed."""
        path = self.path_of(connection)
        method = connection.scope.get("method", "WEBSOCKET")
        if path.rstrip("/") == "/debug" and not self.has_debugger:
            return Refusal(404, f"Not Found; start the app with {DEBUG}=1 for a debugger")
        if self._is_code(path):
            return Refusal(404, "Not Found")
        if not self._is_known_host(connection):
            return Refusal(
                403,
                f"unknown Host {connection.headers.get('host', '')!r}; use localhost or an IP "
                f"address, or add the name to {ALLOWED_HOSTS}",
            )
        if self._is_foreign(connection, method):
            return Refusal(
                403,
                f"request of a foreign page ({connection.headers.get('origin', 'cross-site')}); "
                "use the app's own page, or a client that is no browser",
            )
        if method not in _READING and self.is_page_route(path) and not self._has_token(connection):
            return Refusal(403, "the cookie of the app's page is missing; reload the page")
        return None

    def path_of(self, connection: HTTPConnection) -> str:
        """Return the path without the platform's prefix."""
        path = str(connection.scope["path"])
        return path.removeprefix(self.path_prefix) if self.has_prefix(path) else path

    def has_prefix(self, path: str) -> bool:
        """Return whether a path has the platform's prefix; all routes answer with and without."""
        return bool(self.path_prefix) and path.startswith(f"{self.path_prefix}/")

    def is_page_route(self, path: str) -> bool:
        """Return whether only the app's own page uses a route."""
        return path.startswith(_PAGE_FOLDERS) or self.is_widget(path.split("/")[1])

    def page_cookie(self, connection: HTTPConnection) -> str:
        """Return the name of the page's cookie; cookies do not distinguish ports, the name does."""
        port = connection.headers.get("host", "").rpartition(":")[2]
        return f"app_page_{port if port.isdecimal() else 'default'}"

    def _is_code(self, path: str) -> bool:
        if not path.startswith(STATIC_FOLDERS):
            return False
        name = PurePosixPath(path)
        return name.suffix.lower() not in _STATIC_TYPES or name.name.startswith(".")

    def _is_known_host(self, connection: HTTPConnection) -> bool:
        """Accept names that DNS rebinding cannot use: it needs a name of the attacker."""
        host = host_of(connection.headers.get("host", ""))
        return (
            self.is_behind_platform or is_ip_address(host) or is_local(host) or host in self.hosts
        )

    def _is_foreign(self, connection: HTTPConnection, method: str) -> bool:
        headers = connection.headers
        origin = headers.get("origin")
        if origin is not None:
            return authority_of(origin) not in self._own_authorities(headers) and not (
                self.is_behind_platform and host_of(origin) in self.hosts | {self.platform}
            )
        if self.is_behind_platform or headers.get("sec-fetch-site") != "cross-site":
            return False
        # A link to the app's page may be on any page.
        is_link = headers.get("sec-fetch-mode") == "navigate"
        return not (is_link and method == "GET" and headers.get("sec-fetch-dest") == "document")

    def _own_authorities(self, headers: Headers) -> set[str]:
        """Return the hosts and ports under which browsers know this app."""
        names = ["host", "x-forwarded-host"] if self.is_behind_platform else ["host"]
        return {headers[name].lower() for name in names if headers.get(name)}

    def _has_token(self, connection: HTTPConnection) -> bool:
        given = connection.cookies.get(self.page_cookie(connection), "")
        matches = secrets.compare_digest(given.encode(), self.page_token.encode())
        return self.is_behind_platform or matches


def app_policy(is_widget: Callable[[str], bool]) -> AccessPolicy:
    """Return the policy of this process."""
    return AccessPolicy.from_environment(os.environ, is_widget)
