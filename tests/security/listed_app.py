"""Runs an app like uvicorn, after it wrote the app's routes to `routes.json`."""

import json
import sys
from pathlib import Path

import uvicorn
from starlette.routing import Mount, WebSocketRoute
from starlette.staticfiles import StaticFiles
from uvicorn.importer import import_from_string


def listed(routes, prefix=""):
    """Yield [kind or method, path] of each route, also of mounted applications."""
    for route in routes:
        path = prefix + route.path
        if isinstance(route, Mount):
            inner = list(listed(getattr(route.app, "routes", []), path))
            yield from inner or [["STATIC", path]]
            assert inner or isinstance(route.app, StaticFiles), route
        elif isinstance(route, WebSocketRoute) or not hasattr(route, "methods"):
            yield ["WEBSOCKET", path]
        else:
            yield from ([method, path] for method in sorted(route.methods))


if __name__ == "__main__":
    options = uvicorn.main.make_context("uvicorn", sys.argv[1:]).params
    sys.path.insert(0, options["app_dir"])
    app = import_from_string(options["app"])
    server = app.get_server() if hasattr(app, "get_server") else app
    Path("routes.json").write_text(json.dumps([*listed(server.routes)]))
    uvicorn.main(sys.argv[1:])
