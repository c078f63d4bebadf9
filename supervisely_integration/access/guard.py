"""ASGI middleware that applies the access policy."""

from typing import Any

from fastapi import FastAPI, HTTPException, params
from fastapi.routing import APIRoute
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from .bodies import MAX_JSON_BYTES, BodyTooLargeError, body_problem, read_body, replay
from .policy import DOCUMENTS, AccessPolicy, Refusal

JSON = "application/json"
_OTHER_BODIES = ("/tensorboard/",)  # requests that TensorBoard answers


def guard_server(server: FastAPI, policy: AccessPolicy) -> None:
    """Apply a policy to all routes of an app, also to those that are added later.

    In production the SDK requests its own page at the start, which builds the middleware stack; it
    is built again.
    """
    server.middleware_stack = None
    server.user_middleware.insert(0, Middleware(AccessGuard, server=server, policy=policy))
    server.user_middleware.append(Middleware(StateDefaults))  # inside the SDK's, which reads bodies


class AccessGuard:
    """Refuses requests that the policy does not allow, and JSON bodies that the SDK cannot read.

    Args:
        app: the application behind the middleware.
        server: whose routes are served.
        policy: to apply.
    """

    def __init__(self, app: ASGIApp, server: FastAPI, policy: AccessPolicy) -> None:
        self._app = app
        self._server = server
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, or refuse it."""
        if scope["type"] == "lifespan" or _is_internal(scope):
            await self._app(scope, receive, send)
            return
        if self._policy.has_prefix(scope["path"]):
            scope = {**scope, "root_path": self._policy.path_prefix}  # not part of routes
        connection = HTTPConnection(scope)
        refusal = self._policy.refusal(connection)
        if scope["type"] == "http":
            refusal = refusal or self._refuse_content(connection)
            await self._answer(connection, refusal, receive, send)
        elif refusal is not None:
            await WebSocketClose(1008, refusal.message)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _answer(
        self, connection: HTTPConnection, refusal: Refusal | None, receive: Receive, send: Send
    ) -> None:
        if refusal is None and JSON in connection.headers.get("content-type", ""):
            try:
                body = await read_body(receive)
            except ClientDisconnect:
                return
            except BodyTooLargeError:
                refusal = _too_large()
            else:
                receive = replay(body, receive)
                problem = body_problem(body)
                refusal = None if problem is None else Refusal(400, problem)
        if refusal is not None:
            answer = error_answer(refusal.status, refusal.message)
            await answer(connection.scope, receive, send)
        elif self._policy.path_of(connection) in DOCUMENTS and not self._policy.is_behind_platform:
            await self._app(connection.scope, receive, self._with_cookie(connection, send))
        else:
            await self._app(connection.scope, receive, send)

    def _refuse_content(self, connection: HTTPConnection) -> Refusal | None:
        """Refuse a body that is no JSON, or too large, before it is read."""
        headers = connection.headers
        size, given = headers.get("content-length", "0"), headers.get("content-type", "")
        if size == "0" and "transfer-encoding" not in headers:
            return None
        if JSON in given and size.isdecimal() and int(size) > MAX_JSON_BYTES:
            return _too_large()
        path = self._policy.path_of(connection)
        limit = getattr(self._server.state, "max_form_bytes", {}).get(path)
        if limit is not None and size.isdecimal() and int(size) > limit:
            return Refusal(413, f"the request has more than {limit // 2**20} MiB; send less")
        kind = given.partition(";")[0].strip().lower()
        if kind == JSON or self._policy.is_behind_platform or self._takes_forms(connection):
            return None
        return Refusal(415, f"Content-Type is {kind or 'missing'}; send {JSON}")

    def _takes_forms(self, connection: HTTPConnection) -> bool:
        path = self._policy.path_of(connection)
        return path.startswith(_OTHER_BODIES) or any(
            isinstance(route, APIRoute) and route.path == path
            for route in self._server.routes
            if _has_form(route)
        )

    def _with_cookie(self, connection: HTTPConnection, send: Send) -> Send:
        """Give the page its token; browsers do not show it in a frame of another site."""
        name, token = self._policy.page_cookie(connection), self._policy.page_token
        cookie = f"{name}={token}; HttpOnly; Path=/; SameSite=Strict"

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.append("set-cookie", cookie)
                headers["x-frame-options"] = "SAMEORIGIN"
            await send(message)

        return send_with_cookie


class StateDefaults:
    """Answers 400 if a route needs a part of the state that the request lacks.

    Args:
        app: the application behind the middleware.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Complete what the SDK's middleware read from the body."""
        if scope["type"] == "http":
            read = scope.setdefault("state", {})
            read["state"] = RequestState(read.get("state") or {})
            for name in ("context", "api", "api_token", "server_address"):
                read.setdefault(name, None)
        await self._app(scope, receive, send)


class RequestState(dict[str, Any]):
    """The state of a request; a missing key is an error of the client."""

    def __missing__(self, key: str) -> Any:
        """Raise the answer.

        Raises:
            HTTPException: with status 400.
        """
        raise HTTPException(400, f"state.{key} is missing; send it as {JSON}")


def error_answer(status: int, message: str) -> JSONResponse:
    """Return an error in the form that pages and SDK clients show."""
    return JSONResponse({"detail": message, "message": message, "success": False}, status)


def _too_large() -> Refusal:
    return Refusal(413, f"the JSON body has more than {MAX_JSON_BYTES // 2**20} MiB; send less")


def _is_internal(scope: Scope) -> bool:
    """Return whether the SDK requests its own page within this process.

    Its client of Starlette adds this extension; requests from a network never have it.
    """
    return "http.response.debug" in scope.get("extensions", {})


def _has_form(route: Any) -> bool:
    fields = route.dependant.body_params if isinstance(route, APIRoute) else ()
    return any(isinstance(each.field_info, params.Form) for each in fields)
