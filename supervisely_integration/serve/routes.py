"""Routes and error handlers that the serving app replaces.

The routes of `Inference.serve` (supervisely/nn/inference/inference.py) answer an invalid request
with status 500 and the text "Internal Server Error", which makes clients retry.
"""

import logging
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import requests
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from supervisely.nn.inference.inference import Inference

from rtdetrv2_pytorch.src.misc.errors import ConfigError, RTDETRError

from ..access.guard import error_answer
from ..sdk.access import protect_app
from ..sdk.deployment import keep_on_failure
from ..sdk.websockets import drop_closed_connections
from .checked_routes import replace_unchecked_routes
from .image_inputs import replace_image_routes
from .pages import serve_pages

logger = logging.getLogger(__name__)

_NOTES: ContextVar[list[str]] = ContextVar("notes")
_TIMES: ContextVar[dict[str, float]] = ContextVar("times")
_TRACKING = ("/tracking_by_detection", "/get_tracking_settings")


def prepare_server(model: Inference) -> None:
    """Install the routes and error handlers of this module in the server of a serving app.

    The model that a training app evaluates keeps the SDK's.
    """
    if model.gui is None and not model._is_cli_deploy:
        return
    drop_closed_connections()
    server = model.app.get_server()
    server.middleware_stack = None
    server.add_middleware(BaseHTTPMiddleware, dispatch=_send_notes)
    protect_app(server)
    for kind in (RTDETRError, ValueError, FileNotFoundError, KeyError, RuntimeError):
        server.add_exception_handler(kind, _bad_request)
    server.add_exception_handler(requests.HTTPError, _platform_error)
    _remove(server, _TRACKING)
    replace_image_routes(server, model)
    replace_unchecked_routes(server, model, lambda paths: _remove(server, paths))
    _replace_deployment(server, model)
    serve_pages(server, has_app_page=model.gui is not None)


def note(text: str) -> None:
    """Add a remark on the current request to its response, as header `x-note`, and to the log."""
    logger.info(text)
    _NOTES.get([]).append(text)


def add_times(times_ms: Mapping[str, float]) -> None:
    """Add milliseconds of a prediction to the header `server-timing` of the current response."""
    sums = _TIMES.get({})
    for name, value in times_ms.items():
        sums[name] = sums.get(name, 0.0) + value


async def _send_notes(request: Request, call_next: RequestResponseEndpoint) -> Response:
    notes: list[str] = []
    times: dict[str, float] = {}
    _NOTES.set(notes)  # the threads of routes and predictions inherit both
    _TIMES.set(times)
    response = await call_next(request)
    if notes:
        response.headers["x-note"] = "; ".join(notes)
    if times:
        parts = (f"{name};dur={value:.2f}" for name, value in times.items())
        response.headers["server-timing"] = ", ".join(parts)
    return response


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
    return error_answer(400, message)


async def _platform_error(request: Request, error: Exception) -> JSONResponse:
    """Pass on a client error that the platform reported, such as an invalid id."""
    response = getattr(error, "response", None)
    status = 400 if response is None else response.status_code
    return error_answer(status if 400 <= status < 500 else 502, str(error))


def _remove(server: FastAPI, paths: Sequence[str]) -> list[Any]:
    """Remove routes; returns them."""
    routes = server.router.routes
    removed = [route for route in routes if getattr(route, "path", None) in paths]
    routes[:] = [route for route in routes if route not in removed]
    return removed


def _replace_deployment(server: FastAPI, model: Inference) -> None:
    """Keep the deployed model until the new one is loaded; the SDK's route stops it first."""
    (route,) = _remove(server, ["/deploy_from_api"])

    @server.post("/deploy_from_api")
    def deploy_from_api(response: Response, request: Request) -> Any:
        params = request.state.state.get("deploy_params")
        if not isinstance(params, dict) or "model_source" not in params:
            raise ConfigError("deploy_params: give an object with model_source and model_files")
        with keep_on_failure(model):
            return route.endpoint(response=response, request=request)
