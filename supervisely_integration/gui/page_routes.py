"""Routes of the app's own page that replace requests to the platform."""

import os

import requests
import supervisely as sly
from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.routing import Route

from .log_window import LogWindow

_TIMEOUT_S = 10.0


def page_routes(window: LogWindow) -> list[Route]:
    """Return the routes below "/gui".

    Args:
        window: log that the page shows.
    """

    def read_log(request: Request) -> Response:
        after = request.query_params.get("after", "0")
        return JSONResponse(window.lines(int(after) if after.isdecimal() else 0))

    return [
        Route("/gui/logs", read_log),
        Route("/gui/projects/{id:int}/tags", _read_tags),
        Route("/gui/thumbnails/{id:int}", _read_thumbnail),
    ]


def _read_tags(request: Request) -> Response:
    try:
        meta = sly.Api.from_env().project.get_meta(request.path_params["id"])
    except requests.RequestException as error:
        return JSONResponse({"detail": str(error)}, 502)
    return JSONResponse([{"name": t["name"], "color": t["color"]} for t in meta["tags"]])


def _read_thumbnail(request: Request) -> Response:
    """Return a thumbnail from the local instance, which requires its token."""
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
