"""The bytes of Team Files."""

import posixpath
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response, StreamingResponse

from ..archives import tar_chunks
from ..public_api import API
from ..storage.blobs import CHUNK_BYTES
from ..storage.errors import InvalidRequestError, NotFoundError
from ..storage.team_files import normalise
from ..store import Store
from ..streaming import file_response
from .common import Fields, Json, StoreOf, WithUrls, integer, required
from .uploads import parsed_form

router = APIRouter()


@router.post(f"{API}/file-storage.upload")
async def upload_file(store: StoreOf, request: Request, with_urls: WithUrls) -> Json:
    """One file: the body of the request."""
    team_id = integer(request.query_params, "teamId")
    path = normalise(required(request.query_params, "path"))
    with store.blobs.incoming() as incoming:
        buffer = bytearray()
        async for chunk in request.stream():
            buffer += chunk
            if len(buffer) >= CHUNK_BYTES:
                await run_in_threadpool(incoming.write, bytes(buffer))
                buffer.clear()
        incoming.write(bytes(buffer))
        return with_urls(await run_in_threadpool(store.files.put, team_id, path, incoming))


@router.post(f"{API}/file-storage.bulk.upload")
async def upload_files(store: StoreOf, request: Request, with_urls: WithUrls) -> list[Json]:
    """Several files: triples of `name`, `path` (a folder) and `file`."""
    team_id = integer(request.query_params, "teamId")
    async with parsed_form(request) as form:
        put = store.files.put_path
        return [
            with_urls(await run_in_threadpool(put, team_id, path, file.file))
            for path, file in _triples(form)
        ]


def _triples(form: FormData) -> list[tuple[str, UploadFile]]:
    files: list[tuple[str, UploadFile]] = []
    fields: dict[str, str] = {}
    for key, value in form.multi_items():
        if isinstance(value, UploadFile):
            folder, name = fields.get("path"), fields.get("name") or value.filename
            if folder is None or not name:
                raise InvalidRequestError("a file came without its name or path before it")
            files.append((f"{folder}/{name}", value))
            fields = {}
        else:
            fields[key] = value
    if not files:
        raise InvalidRequestError("file-storage.bulk.upload: no file in the request")
    return files


@router.post(f"{API}/file-storage.download")
def download_file(store: StoreOf, fields: Fields, request: Request) -> Response:
    """The bytes of a file, or a folder as a tar archive."""
    team_id, path = integer(fields, "teamId"), required(fields, "path")
    try:
        return _file(store, store.files.info_by_path(team_id, path), request)
    except NotFoundError:
        inside = store.files.entries(team_id, path)
        if not inside:
            raise
    top = posixpath.dirname(normalise(path)).rstrip("/") + "/"
    members = [(each["path"].removeprefix(top), store.files.contents(each)) for each in inside]
    return StreamingResponse(tar_chunks(members), media_type="application/x-tar")


@router.get("/file-storage/{id_}")
def view_file(store: StoreOf, request: Request, id_: int) -> Response:
    """The bytes of a file, for a browser; `?download=1` saves it under its name."""
    record = store.files.info(id_)
    name = record["name"] if request.query_params.get("download") else None
    response = _file(store, record, request, name=name)
    # What somebody uploaded must not run as a page of this server, which has the cookie.
    response.headers["content-security-policy"] = "sandbox"
    response.headers["x-content-type-options"] = "nosniff"
    return response


def _file(
    store: Store, record: Mapping[str, Any], request: Request, *, name: str | None = None
) -> Response:
    path = store.files.contents(record)
    mime = record["meta"]["mime"]
    return file_response(path, request, mime=mime, hash_=record["hash"], name=name)
