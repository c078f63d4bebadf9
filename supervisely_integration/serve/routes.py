"""Routes and error handlers that the serving app replaces.

The routes of `Inference.serve` (supervisely/nn/inference/inference.py) answer an invalid request
with status 500 and the text "Internal Server Error", which makes clients retry.
"""

import requests
from fastapi import Request
from fastapi.responses import JSONResponse
from supervisely.nn.inference.inference import Inference

from rtdetrv2_pytorch.src.misc.errors import RTDETRError

from ..access.guard import error_answer
from ..gui.app_page import serve_own_page
from ..sdk.access import protect_app
from ..sdk.websockets import drop_closed_connections
from .image_inputs import replace_image_routes


def prepare_server(model: Inference) -> None:
    """Install the routes and error handlers of this module in the server of a serving app.

    The model that a training app evaluates keeps the SDK's.
    """
    if model.gui is None and not model._is_cli_deploy:
        return
    drop_closed_connections()
    server = model.app.get_server()
    protect_app(server)
    for kind in (RTDETRError, ValueError, FileNotFoundError, KeyError, RuntimeError):
        server.add_exception_handler(kind, _bad_request)
    server.add_exception_handler(requests.HTTPError, _platform_error)
    replace_image_routes(server, model)
    if model.gui is not None:
        serve_own_page(server)


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
