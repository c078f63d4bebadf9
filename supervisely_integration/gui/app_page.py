"""Serves the apps' own page, which renders the SDK's widget templates."""

import logging
import os
from typing import Any

import supervisely as sly
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from supervisely.app.fastapi.subapp import get_name_from_env
from supervisely.app.fastapi.templating import Jinja2Templates
from supervisely.app.widgets_context import JinjaWidgets

from ..access.hosts import is_local
from .choice import needs_own_page
from .libraries import PACKAGES, SCRIPTS, STYLES, WEB, missing_libraries
from .log_window import LogWindow
from .page_routes import page_routes

logger = logging.getLogger(__name__)

_HEADERS = {
    # Only files of this app. Vue 2 compiles the SDK's templates in the browser.
    "content-security-policy": (
        "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'"
    ),
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


class Assets(StaticFiles):
    """Static files of the page; a subclass, since the SDK copies `StaticFiles` into Team Files."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        """Return a file that browsers revalidate before they use their cache."""
        response = super().file_response(*args, **options)
        response.headers["cache-control"] = "no-cache"
        return response


def serve_own_page(server: FastAPI) -> bool:
    """Serve the app's own page at "/" if the platform's cannot work; returns whether it is served.

    On a platform, the platform's page stays if the libraries are not installed: a browser may reach
    scripts that the app cannot.
    """
    address = sly.env.server_address(raise_not_found=False) or ""
    if not needs_own_page(address):
        return False
    missing = missing_libraries()
    if missing and not is_local(address):
        logger.warning("cannot reach the platform's page scripts; run `make page` for a local page")
        return False
    if missing:
        logger.warning("the page's libraries are missing: install Node.js, then run `make page`")
    window = LogWindow()
    sly.logger.addHandler(window)
    front = [
        Route("/", _read_page),
        Mount("/gui/web", Assets(directory=WEB)),
        Mount("/gui/packages", Assets(directory=PACKAGES, check_dir=False)),
        *page_routes(window),
    ]
    server.router.routes[:0] = front  # before the SDK's own "/"
    return True


def _read_page(request: Request) -> Response:
    if request.query_params.get("ping", "").lower() in ("true", "1"):
        return JSONResponse({"message": "App is running"})
    return HTMLResponse(render_page(), headers=_HEADERS)


def render_page() -> str:
    """Render the page, or instructions if its libraries are missing."""
    name = "unbuilt.html" if missing_libraries() else "page.html"
    template = Jinja2Templates().env.from_string((WEB / name).read_text(encoding="utf-8"))
    address = sly.env.server_address(raise_not_found=False) or ""
    instance = sly.Api.normalize_server_address(address) if is_local(address) else ""
    # The address contains the token, which the app gives to every reader of this page anyway.
    instance_page = f"{instance}/?token={os.environ.get('API_TOKEN', '')}" if instance else ""
    return template.render(
        {
            **JinjaWidgets().context,
            "app_name": get_name_from_env(default="Supervisely App"),
            "instance": instance,
            "instance_page": instance_page,
            "scripts": [f"./gui/packages/{each}" for each in SCRIPTS],
            "styles": [*(f"./gui/packages/{each}" for each in STYLES), "./gui/web/page.css"],
        }
    )
