"""Team Files: lists, records and removal; `contents` transfers the bytes."""

import base64
from typing import Any

from ..storage.sql.errors import InvalidRequestError
from ..store import Store
from .fields import Fields, Methods

_MAX_ENTRIES = 10_000


def _list(store: Store, f: Fields) -> list[dict[str, Any]]:
    return store.files.entries(
        f.integer("teamId"), f.required("path"), is_recursive=bool(f.get("recursive", True))
    )


def _list_pages(store: Store, f: Fields) -> Any:
    kinds = {kind for kind in ("file", "folder") if f.get(f"{kind}s", True)}
    entries = [entry for entry in _list(store, f) if entry["type"] in kinds]
    token = f.get("continuationToken")
    try:
        start = int(base64.urlsafe_b64decode(token)) if token else 0
    except ValueError as error:
        raise InvalidRequestError(f"continuationToken {token!r} is not a page token") from error
    end = start + min(int(f.get("limit") or _MAX_ENTRIES), _MAX_ENTRIES)
    rest = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(entries) else None
    return {"entities": entries[start:end], "continuationToken": rest}


def _remove(store: Store, f: Fields, paths: list[str]) -> None:
    store.files.remove(f.integer("teamId"), paths)


METHODS: Methods = {
    "file-storage.info": lambda store, f: store.files.info(f.integer("id")),
    "file-storage.list": _list,
    "file-storage.v2.list": _list_pages,
    "file-storage.remove": lambda store, f: _remove(store, f, [f.required("path")]),
    "file-storage.bulk.remove": lambda store, f: _remove(store, f, f.list_of("paths")),
}
