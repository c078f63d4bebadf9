"""Team Files: lists, records, removal; the contents are in `file_contents`."""

import base64
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter

from ..public_api import API
from ..storage.errors import InvalidRequestError
from .common import SUCCESS, Fields, Json, StoreOf, WithUrls, integer, items, required

router = APIRouter(prefix=f"{API}/file-storage")

_MAX_ENTRIES = 10_000


@router.post(".info")
def file_info(store: StoreOf, fields: Fields, with_urls: WithUrls) -> Json:
    """One file."""
    return with_urls(store.files.info(integer(fields, "id")))


@router.post(".list")
def list_files(store: StoreOf, fields: Fields, with_urls: WithUrls) -> list[Json]:
    """The file at a path, or what is in a folder; a plain list, without pages."""
    entries = store.files.entries(
        integer(fields, "teamId"),
        required(fields, "path"),
        is_recursive=bool(fields.get("recursive", True)),
    )
    return [with_urls(entry) for entry in entries]


@router.post(".v2.list")
def list_storage(store: StoreOf, fields: Fields, with_urls: WithUrls) -> Json:
    """What is in a folder, in pages; `files` and `folders` say which of both."""
    kinds = {kind for kind in ("file", "folder") if fields.get(f"{kind}s", True)}
    entries = store.files.entries(
        integer(fields, "teamId"),
        required(fields, "path"),
        is_recursive=bool(fields.get("recursive", True)),
    )
    wanted = [with_urls(entry) for entry in entries if entry["type"] in kinds]
    start = _read_token(fields)
    end = start + min(int(fields.get("limit") or _MAX_ENTRIES), _MAX_ENTRIES)
    return {
        "entities": wanted[start:end],
        "continuationToken": _write_token(end) if end < len(wanted) else None,
    }


def _write_token(offset: int) -> str:
    return base64.urlsafe_b64encode(str(offset).encode()).decode()


def _read_token(fields: Mapping[str, Any]) -> int:
    token = fields.get("continuationToken")
    try:
        return int(base64.urlsafe_b64decode(token)) if token else 0
    except ValueError as error:
        raise InvalidRequestError(
            f"continuationToken {token!r} is none of this instance"
        ) from error


@router.post(".remove")
def remove_file(store: StoreOf, fields: Fields) -> Json:
    """Remove a file, or a folder with all that is in it."""
    store.files.remove(integer(fields, "teamId"), [required(fields, "path")])
    return SUCCESS


@router.post(".bulk.remove")
def remove_files(store: StoreOf, fields: Fields) -> Json:
    """Remove several files or folders."""
    store.files.remove(integer(fields, "teamId"), items(fields, "paths"))
    return SUCCESS
