"""The methods that take and return JSON: `POST /public/api/v3/<method>`."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ..public_api import API
from . import annotation_methods, file_methods, platform_methods, project_methods
from .fields import Fields, Methods

METHODS: Methods = {
    **platform_methods.METHODS,
    **project_methods.METHODS,
    **annotation_methods.METHODS,
    **file_methods.METHODS,
}
_URLS = ("fullStorageUrl", "pathOriginal", "referenceImageUrl")

router = APIRouter()


@router.post(f"{API}/{{method}}")
def call(
    request: Request, method: str, body: Annotated[dict[str, Any] | None, Body()] = None
) -> JSONResponse:
    """Call a method and return its response."""
    if method not in METHODS:
        raise HTTPException(404)
    fields = Fields(body or {}, request.headers.get("x-task-id", ""))
    result = METHODS[method](request.app.state.store, fields)
    return JSONResponse({"success": True} if result is None else with_urls(result, request))


def with_urls(result: Any, request: Request) -> Any:
    """Prepend the address of this server to the paths in records."""
    base = str(request.base_url).rstrip("/")
    records = result.get("entities", [result]) if isinstance(result, dict) else result
    for record in records if isinstance(records, list) else []:
        for name in _URLS:
            if isinstance(record, dict) and str(record.get(name)).startswith("/"):
                record[name] = base + record[name]
    return result
