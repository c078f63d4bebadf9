"""Token authorization of every request."""

import os
import secrets
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from .public_api import error_response

COOKIE = "local_token"
_HEADER = "x-api-key"
_LOCKED_PAGE = Path(__file__).with_name("locked.html")
_YEAR_S = 365 * 24 * 3600
_NO_TOKEN = (
    "the token is missing or wrong; send the header x-api-key, or open the address with ?token=... "
    "that `up` prints"
)


def instance_token(root: Path) -> str:
    """Return the token: `API_TOKEN`, else the one in the root, which the first start creates."""
    given = os.environ.get("API_TOKEN", "").strip()
    if given:
        return given
    file = root / "token"
    if not file.exists():
        root.mkdir(parents=True, exist_ok=True)
        # Hard-linked: after two concurrent first starts, both read the same complete token.
        handle, name = tempfile.mkstemp(dir=root)  # mode 0600
        with os.fdopen(handle, "w") as temporary:
            temporary.write(secrets.token_urlsafe(32))
        try:
            file.hardlink_to(name)
        except FileExistsError:
            pass
        finally:
            Path(name).unlink()
    return file.read_text().strip()


class TokenCheck:
    """ASGI middleware that rejects requests without the token.

    Clients send the token in the header `x-api-key` or in a cookie, which `GET /?token=...` sets
    for a browser. A request with the cookie must come from a page of this server, because
    browsers also send cookies with requests from other pages on this host.

    Args:
        app: the application behind the middleware.
        token: the expected token.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, or answer 401."""
        if scope["type"] != "http":  # a WebSocket; the instance has none
            return
        answer: ASGIApp
        connection = HTTPConnection(scope)
        given = connection.query_params.get("token", "")
        if scope["path"] == "/" and scope["method"] == "GET" and self._matches(given):
            answer = _with_cookie(given)
        elif self._is_allowed(connection):
            answer = self._app
        elif scope["path"] == "/":
            answer = HTMLResponse(_LOCKED_PAGE.read_bytes(), 401)
        else:
            answer = error_response(401, _NO_TOKEN)
        await answer(scope, receive, send)

    def _is_allowed(self, connection: HTTPConnection) -> bool:
        headers = connection.headers
        if self._matches(headers.get(_HEADER, "")):
            return True
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return False
        return self._matches(connection.cookies.get(COOKIE, ""))

    def _matches(self, token: str) -> bool:
        return secrets.compare_digest(token.encode(), self._token)


def _with_cookie(token: str) -> Response:
    answer = RedirectResponse("/", 303, {"cache-control": "no-store"})
    answer.set_cookie(COOKIE, token, max_age=_YEAR_S, httponly=True, samesite="strict")
    return answer
