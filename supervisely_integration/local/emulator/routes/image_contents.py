"""The bytes of images."""

from typing import Annotated

from fastapi import APIRouter, Body, Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.responses import Response, StreamingResponse

from ..public_api import API
from ..storage.errors import InvalidRequestError
from ..streaming import Part, file_response, multipart_response
from .common import Fields, Json, StoreOf, integer, integers
from .uploads import parsed_form

router = APIRouter()


@router.post(f"{API}/images.internal.hashes.list")
def known_hashes(store: StoreOf, hashes: Annotated[list[str], Body()]) -> list[str]:
    """Those of the hashes that need no upload."""
    return store.blobs.reserve_known_images(hashes)


@router.post(f"{API}/images.bulk.upload")
async def upload_images(store: StoreOf, request: Request) -> list[Json]:
    """Contents for images to be added by hash."""
    async with parsed_form(request) as form:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not files:
            raise InvalidRequestError("images.bulk.upload: no file in the request")
        keep = store.images.store_contents
        return [
            {"hash": await run_in_threadpool(keep, file.file, file.filename or "image")}
            for file in files
        ]


@router.post(f"{API}/images.download")
def download_image(store: StoreOf, fields: Fields, request: Request) -> Response:
    """The bytes of one image."""
    path, info = store.images.contents(integer(fields, "id"))
    return file_response(path, request, mime=info["mime"], hash_=info["hash"])


@router.post(f"{API}/images.bulk.download")
def download_images(store: StoreOf, fields: Fields) -> StreamingResponse:
    """The bytes of several images."""
    infos = store.images.infos(integers(fields, "imageIds"))
    parts = [
        Part(str(info["id"]), store.blobs.path(info["hash"]), info["mime"], info["hash"])
        for info in infos
    ]
    return multipart_response(parts)


@router.get("/image-storage/{id_}")
def view_image(store: StoreOf, request: Request, id_: int) -> Response:
    """The bytes of one image, for a browser."""
    path, info = store.images.contents(id_)
    response = file_response(path, request, mime=info["mime"], hash_=info["hash"])
    response.headers["cache-control"] = "private, max-age=3600"
    return response
