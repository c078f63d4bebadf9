"""What the page asks its app for, where the platform's asks the platform."""

import os

import requests
import supervisely as sly
from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.routing import Route

from .log_window import LogWindow

_TIMEOUT_S = 10.0


def page_routes(window: LogWindow) -> list[Route]:
    """The routes below "/gui".

    Args:
        window: the log that the page shows.
    """

    def read_log(request: Request) -> Response:
        after = request.query_params.get("after", "0")
        return JSONResponse(window.lines(int(after) if after.isdecimal() else 0))

    return [
        Route("/gui/logs", read_log),
        Route("/gui/projects/{id:int}/tags", _read_tags),
        Route("/gui/pictures/{id:int}", _read_picture),
    ]


def _read_tags(request: Request) -> Response:
    try:
        meta = sly.Api.from_env().project.get_meta(request.path_params["id"])
    except requests.RequestException as error:
        return JSONResponse({"detail": str(error)}, 502)
    return JSONResponse([{"name": t["name"], "color": t["color"]} for t in meta["tags"]])


def _read_picture(request: Request) -> Response:
    """A small picture of an image of the local instance, which asks for its token."""
    instance = sly.Api.normalize_server_address(sly.env.server_address())
    token = {"x-api-key": os.environ.get("API_TOKEN", "")}
    try:
        answer = requests.get(
            f"{instance}/page/thumbnails/{request.path_params['id']}",
            headers=token,
            timeout=_TIMEOUT_S,
        )
        answer.raise_for_status()
    except requests.RequestException as error:
        return JSONResponse({"detail": str(error)}, 502)
    kind = answer.headers.get("content-type", "image/jpeg")
    return Response(answer.content, media_type=kind, headers={"cache-control": "max-age=3600"})
