"""Serves the apps' own page, which renders the SDK's widget templates."""

import logging
import os
from collections.abc import Mapping

import supervisely as sly
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.routing import Route
from supervisely.app.widgets_context import JinjaWidgets

from ..access.hosts import is_local
from .choice import needs_own_page
from .documents import mount_assets, render
from .libraries import SCRIPTS, STYLES, missing_libraries
from .log_window import LogWindow
from .page_routes import page_routes

logger = logging.getLogger(__name__)

# Vue 2 compiles the SDK's templates in the browser.
_SCRIPTS_ALLOWED = "'self' 'unsafe-eval'"


def serve_own_page(server: FastAPI, links: Mapping[str, str] | None = None) -> bool:
    """Serve the app's own page at "/" if the platform's cannot work; returns whether it is served.

    On a platform, the platform's page stays if the libraries are not installed: a browser may reach
    scripts that the app cannot.

    Args:
        server: of the app.
        links: to further pages of the app: address -> title.
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

    def read_page(request: Request) -> Response:
        if request.query_params.get("ping", "").lower() in ("true", "1"):
            return JSONResponse({"message": "App is running"})
        if request.client is None:  # the SDK's own request, at the end and when a widget reloads
            return JSONResponse({"message": "This page is not stored"})
        return _render_page(links or {})

    server.router.routes[:0] = [Route("/", read_page), *page_routes(window)]  # before the SDK's
    mount_assets(server)
    return True


def _render_page(links: Mapping[str, str]) -> Response:
    """Render the page, or instructions if its libraries are missing."""
    if missing_libraries():
        return render("unbuilt.html", {"links": links})
    address = sly.env.server_address(raise_not_found=False) or ""
    instance = sly.Api.normalize_server_address(address) if is_local(address) else ""
    # The address contains the token, which the app gives to every reader of this page anyway.
    instance_page = f"{instance}/?token={os.environ.get('API_TOKEN', '')}" if instance else ""
    values = {
        **JinjaWidgets().context,
        "links": links,
        "instance": instance,
        "instance_page": instance_page,
        "scripts": [f"./gui/packages/{each}" for each in SCRIPTS],
        "styles": [*(f"./gui/packages/{each}" for each in STYLES), "./gui/web/page.css"],
    }
    return render("page.html", values, _SCRIPTS_ALLOWED)
