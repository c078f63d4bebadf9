"""Pages of the serving app beside the SDK's: try an image, and the documentation of the API."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from rtdetrv2_pytorch.src.data.images.urls import download_image, shown_url

from ..gui.app_page import serve_own_page
from ..gui.documents import mount_assets, render
from ..gui.libraries import API_SCRIPTS, API_STYLES, missing_libraries
from .api_description import describe_api
from .image_inputs import InputImage

_LINKS = {"./try": "Try an image", "./docs": "API"}


def serve_pages(server: FastAPI, *, has_app_page: bool) -> None:
    """Add the pages and their routes to a server.

    Args:
        server: of the serving app.
        has_app_page: whether "/" is the page that deploys a model; otherwise it is `/try`.
    """
    mount_assets(server)
    home = {"./": "App"} if has_app_page else {}

    def page(path: str) -> Any:
        return server.get(path, include_in_schema=False)

    @page("/try")
    def try_page() -> Response:
        return render("try.html", {"links": {**home, "./docs": "API"}})

    @page("/docs")
    def api_page() -> Response:
        if missing_libraries((*API_SCRIPTS, *API_STYLES)):
            links = {"./try": "Try an image", "./openapi.json": "openapi.json"}
            return render("unbuilt.html", {"links": links})
        styles = [*(f"./gui/packages/{name}" for name in API_STYLES), "./gui/web/page.css"]
        scripts = [f"./gui/packages/{name}" for name in API_SCRIPTS]
        return render("api.html", {"styles": styles, "scripts": scripts})

    @page("/openapi.json")
    def openapi() -> dict[str, Any]:
        return describe_api()

    @server.post("/gui/image", include_in_schema=False)
    def image(request: Request) -> Response:
        """Return the file of a URL: the page may not load images of other sites."""
        url = request.state.state["image_url"]
        content = download_image(url)
        InputImage.open(content, shown_url(url))
        headers = {"x-content-type-options": "nosniff"}
        return Response(content.getvalue(), media_type="application/octet-stream", headers=headers)

    if has_app_page:
        serve_own_page(server, _LINKS)
    else:
        routes = server.router.routes
        routes[:] = [route for route in routes if getattr(route, "path", None) != "/"]
        page("/")(try_page)
