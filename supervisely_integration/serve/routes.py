"""Routes and error handlers that the serving app replaces.

The routes of `Inference.serve` (supervisely/nn/inference/inference.py) answer an invalid request
with status 500 and the text "Internal Server Error", which makes clients retry.
"""

import json

import requests
from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import ClientDisconnect
from supervisely.nn.inference.inference import Inference

from rtdetrv2_pytorch.src.misc.errors import RTDETRError

from ..gui.app_page import serve_own_page
from ..sdk.websockets import drop_closed_connections
from .image_inputs import replace_image_routes


def prepare_server(model: Inference) -> None:
    """Install the routes and error handlers of this module in the server of a serving app.

    The model that a training app evaluates keeps the SDK's. In production the SDK requests its own
    page at the start. That builds the middleware stack, and handlers that are added later, the
    SDK's own included, have no effect: the stack is built again.
    """
    if model.gui is None and not model._is_cli_deploy:
        return
    drop_closed_connections()
    server = model.app.get_server()
    server.middleware_stack = None
    server.add_middleware(BaseHTTPMiddleware, dispatch=_check_body)
    for kind in (RTDETRError, ValueError, FileNotFoundError, KeyError, RuntimeError):
        server.add_exception_handler(kind, _bad_request)
    server.add_exception_handler(requests.HTTPError, _platform_error)
    replace_image_routes(server, model)
    if model.gui is not None:
        serve_own_page(server)


async def _check_body(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Answer 400 to a body that is not valid JSON, before the SDK reads it."""
    if "application/json" in request.headers.get("content-type", ""):
        try:
            problem = body_problem(await request.body())
        except ClientDisconnect:
            problem = "the client disconnected"
        if problem is not None:
            return _answer(400, problem)
    return await call_next(request)


def body_problem(body: bytes) -> str | None:
    """Validate the JSON body of a request; returns an error message or None."""
    try:
        content = json.loads(body)
    except ValueError as error:
        return f"the body is not JSON ({error})"
    if not isinstance(content, dict):
        return f"the body is a {type(content).__name__}; send an object with a state"
    for key in ("state", "context"):
        if key in content and not isinstance(content[key], dict):
            return f"{key} is a {type(content[key]).__name__}; send an object"
    return None


def _answer(status: int, message: str) -> JSONResponse:
    return JSONResponse({"detail": message, "message": message, "success": False}, status)


async def _bad_request(request: Request, error: Exception) -> JSONResponse:
    """Answer 400 to errors of the client; others remain errors of the app.

    The SDK raises KeyError for an image that does not exist, and RuntimeError if no model is
    deployed or the request is unknown.
    """
    message = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    of_client = ("inference_request_uuid", "has not yet been deployed")
    is_ours = isinstance(error, KeyError) and " " not in message
    is_ours |= type(error) is RuntimeError and not any(text in message for text in of_client)
    if is_ours:
        raise error
    return _answer(400, message)


async def _platform_error(request: Request, error: Exception) -> JSONResponse:
    """Pass on a client error that the platform reported, such as an invalid id."""
    response = getattr(error, "response", None)
    status = 400 if response is None else response.status_code
    return _answer(status if 400 <= status < 500 else 502, str(error))
