"""HTML documents of an app and the files that they load."""

import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from supervisely.app.fastapi.subapp import get_name_from_env
from supervisely.app.fastapi.templating import Jinja2Templates

from .libraries import PACKAGES, WEB

_NAME = "gui"  # of the mounted folders


class Assets(StaticFiles):
    """Static files of a page; a subclass, since the SDK copies `StaticFiles` into Team Files."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        """Return a file that browsers revalidate before they use their cache."""
        response = super().file_response(*args, **options)
        response.headers["cache-control"] = "no-cache"
        return response


def mount_assets(server: FastAPI) -> None:
    """Serve the files of the pages; does nothing if they are served."""
    routes = server.router.routes
    if not any(getattr(route, "name", None) == _NAME for route in routes):
        routes[:0] = [
            Mount("/gui/web", Assets(directory=WEB), name=_NAME),
            Mount("/gui/packages", Assets(directory=PACKAGES, check_dir=False), name=_NAME),
        ]


def render(name: str, values: Mapping[str, Any], scripts: str = "'self'") -> HTMLResponse:
    """Return a document that loads files of this app only.

    Args:
        name: of a template in `web`.
        values: of the template, in addition to the app's name.
        scripts: sources of scripts that the content security policy allows.
    """
    template = Jinja2Templates().env.from_string((WEB / name).read_text(encoding="utf-8"))
    app_name = get_name_from_env(default="Supervisely App")
    headers = {
        "content-security-policy": (
            f"default-src 'none'; script-src {scripts}; style-src 'self' 'unsafe-inline'; "
            "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'"
        ),
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
    }
    html = template.render({**values, "app_name": app_name})
    html = re.sub(r"(?<=\s)v-html=", "v-markup=", html)  # of the SDK's templates, see markup.js
    return HTMLResponse(html, headers=headers)
