"""Uploads and downloads of files, images and large geometries."""

import json
import posixpath
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response, StreamingResponse

from ..public_api import API
from ..storage.blobs import CHUNK_BYTES
from ..storage.resource import Json
from ..storage.sql.errors import InvalidRequestError, NotFoundError
from ..storage.team_files import normalize
from ..store import Store
from ..streaming import Part, file_response, multipart_response, tar_chunks
from .fields import Fields
from .methods import with_urls

_MAX_PARTS = 100_000
_MAX_FIELD_BYTES = 1 << 20

router = APIRouter()


def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


StoreOf = Annotated[Store, Depends(_store)]
Body_ = Annotated[Json, Body()]


def _form(request: Request) -> AbstractAsyncContextManager[FormData]:
    """The multipart form of a request; its files are temporary files."""
    return request.form(max_files=_MAX_PARTS, max_fields=_MAX_PARTS, max_part_size=_MAX_FIELD_BYTES)


@router.post(f"{API}/images.internal.hashes.list")
def known_hashes(store: StoreOf, hashes: Annotated[list[str], Body()]) -> list[str]:
    """Return the hashes that need no upload."""
    return store.blobs.reserve_known_images(hashes)


@router.post(f"{API}/images.bulk.upload")
async def upload_images(store: StoreOf, request: Request) -> list[Json]:
    """Store contents for images that are added by hash later."""
    async with _form(request) as form:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not files:
            raise InvalidRequestError("images.bulk.upload: no file in the request")
        keep = store.images.store_contents
        return [
            {"hash": await run_in_threadpool(keep, file.file, file.filename or "image")}
            for file in files
        ]


@router.post(f"{API}/images.download")
def download_image(store: StoreOf, request: Request, body: Body_) -> Response:
    """Send an image."""
    return _image_response(store, request, Fields(body).integer("id"))


@router.get("/image-storage/{id_}")
def view_image(store: StoreOf, request: Request, id_: int) -> Response:
    """Send an image to a browser."""
    response = _image_response(store, request, id_)
    response.headers["cache-control"] = "private, max-age=3600"
    return response


def _image_response(store: Store, request: Request, id_: int) -> Response:
    path, info = store.images.contents(id_)
    return file_response(path, request, mime=info["mime"], hash_=info["hash"])


@router.post(f"{API}/images.bulk.download")
def download_images(store: StoreOf, body: Body_) -> StreamingResponse:
    """Send several images."""
    infos = store.images.infos(Fields(body).integers("imageIds"))
    return multipart_response(
        [
            Part(str(info["id"]), store.blobs.path(info["hash"]), info["mime"], info["hash"])
            for info in infos
        ]
    )


@router.post(f"{API}/figures.bulk.download.geometry")
def download_geometries(store: StoreOf, body: Body_) -> StreamingResponse:
    """Send geometries that are too large for annotations, such as alpha masks."""
    geometries = {id_: store.annotations.geometry(id_) for id_ in Fields(body).integers("ids")}
    return multipart_response(
        [
            Part(str(id_), json.dumps(geometry).encode(), "application/json")
            for id_, geometry in geometries.items()
        ]
    )


@router.post(f"{API}/figures.bulk.upload.geometry")
async def upload_geometries(store: StoreOf, request: Request) -> Json:
    """Set geometries: pairs of `figureId` and a JSON file `geometry`."""
    async with _form(request) as form:
        id_: int | None = None
        for name, value in form.multi_items():
            if name == "figureId":
                id_ = Fields({name: value}).integer(name)
            elif isinstance(value, UploadFile):
                if id_ is None:
                    raise InvalidRequestError("a geometry comes before its figureId")
                geometry = json.loads(await value.read())
                await run_in_threadpool(store.annotations.set_geometry, id_, geometry)
    return {"success": True}


@router.post(f"{API}/file-storage.upload")
async def upload_file(store: StoreOf, request: Request) -> Json:
    """Store the body of the request as a file."""
    query = Fields(request.query_params)
    team_id, path = query.integer("teamId"), normalize(query.required("path"))
    with store.blobs.incoming() as incoming:
        buffer = bytearray()
        async for chunk in request.stream():
            buffer += chunk
            if len(buffer) >= CHUNK_BYTES:
                await run_in_threadpool(incoming.write, bytes(buffer))
                buffer.clear()
        incoming.write(bytes(buffer))
        record = await run_in_threadpool(store.files.put, team_id, path, incoming)
        return with_urls(record, request)


@router.post(f"{API}/file-storage.bulk.upload")
async def upload_files(store: StoreOf, request: Request) -> list[Json]:
    """Store files: triples of `name`, `path` (a folder) and `file`."""
    team_id = Fields(request.query_params).integer("teamId")
    async with _form(request) as form:
        put = store.files.put_path
        records = [
            await run_in_threadpool(put, team_id, path, file.file) for path, file in _triples(form)
        ]
        return with_urls(records, request)


def _triples(form: FormData) -> list[tuple[str, UploadFile]]:
    files: list[tuple[str, UploadFile]] = []
    fields: dict[str, str] = {}
    for key, value in form.multi_items():
        if isinstance(value, UploadFile):
            folder, name = fields.get("path"), fields.get("name") or value.filename
            if folder is None or not name:
                raise InvalidRequestError("a file comes before its name or path")
            files.append((f"{folder}/{name}", value))
            fields = {}
        else:
            fields[key] = value
    if not files:
        raise InvalidRequestError("file-storage.bulk.upload: no file in the request")
    return files


@router.post(f"{API}/file-storage.download")
def download_file(store: StoreOf, request: Request, body: Body_) -> Response:
    """Send a file, or a folder as a tar archive."""
    fields = Fields(body)
    team_id, path = fields.integer("teamId"), fields.required("path")
    try:
        return _file_response(store, store.files.info_by_path(team_id, path), request)
    except NotFoundError:
        entries = store.files.entries(team_id, path)
        if not entries:
            raise
    top = posixpath.dirname(normalize(path)).rstrip("/") + "/"
    members = [(each["path"].removeprefix(top), store.files.contents(each)) for each in entries]
    return StreamingResponse(tar_chunks(members), media_type="application/x-tar")


@router.get("/file-storage/{id_}")
def view_file(store: StoreOf, request: Request, id_: int) -> Response:
    """Send a file to a browser; `?download=1` saves it under its name."""
    record = store.files.info(id_)
    name = record["name"] if request.query_params.get("download") else None
    response = _file_response(store, record, request, name=name)
    # An uploaded file must not run as a page of this server, which has the cookie.
    response.headers["content-security-policy"] = "sandbox"
    response.headers["x-content-type-options"] = "nosniff"
    return response


def _file_response(
    store: Store, record: Mapping[str, Any], request: Request, *, name: str | None = None
) -> Response:
    path, mime = store.files.contents(record), record["meta"]["mime"]
    return file_response(path, request, mime=mime, hash_=record["hash"], name=name)
