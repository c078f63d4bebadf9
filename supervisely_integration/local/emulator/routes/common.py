"""What all methods share: how they get the store, read a body, and write a record."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import Body, Depends, Request

from ..storage.errors import InvalidRequestError
from ..storage.listing import DEFAULT_PER_PAGE
from ..store import Store

Json = dict[str, Any]

SUCCESS: Json = {"success": True}
_URLS = ("fullStorageUrl", "pathOriginal", "referenceImageUrl")


def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


def _url_writer(request: Request) -> Callable[[Json], Json]:
    base = str(request.base_url).rstrip("/")

    def write(record: Json) -> Json:
        for entity in record.get("entities", [record]):
            for name in _URLS:
                if str(entity.get(name)).startswith("/"):
                    entity[name] = base + entity[name]
        return record

    return write


def _fields(body: Annotated[Json | None, Body()] = None) -> Json:
    return body or {}


StoreOf = Annotated[Store, Depends(_store)]
# Puts the address of this server in front of the paths that the store writes.
WithUrls = Annotated[Callable[[Json], Json], Depends(_url_writer)]
Fields = Annotated[Json, Depends(_fields)]


def whole_list(entities: list[Json]) -> Json:
    """A list that is answered as one page."""
    return {
        "total": len(entities),
        "perPage": max(DEFAULT_PER_PAGE, len(entities)),
        "pagesCount": 1,
        "entities": entities,
        "after": None,
    }


def required(fields: Mapping[str, Any], name: str) -> Any:
    """A field that has to be there.

    Raises:
        InvalidRequestError: if it is not.
    """
    if fields.get(name) is None:
        raise InvalidRequestError(f"field {name!r} is missing")
    return fields[name]


def integer(fields: Mapping[str, Any], name: str) -> int:
    """A field that has to be a whole number.

    Raises:
        InvalidRequestError: if it is missing, or none.
    """
    value = optional_integer(fields, name)
    if value is None:
        raise InvalidRequestError(f"field {name!r} is missing")
    return value


def optional_integer(fields: Mapping[str, Any], name: str) -> int | None:
    """A field that is a whole number, or not there.

    Raises:
        InvalidRequestError: if it is something else.
    """
    value = fields.get(name)
    if value is None:
        return None
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"{name} = {value!r}: has to be a whole number") from error


def integers(fields: Mapping[str, Any], name: str) -> list[int]:
    """A field that has to be a list of whole numbers.

    Raises:
        InvalidRequestError: if it is missing, or something else.
    """
    return [integer({name: each}, name) for each in items(fields, name)]


def items(fields: Mapping[str, Any], name: str) -> list[Any]:
    """A field that has to be a list.

    Raises:
        InvalidRequestError: if it is missing, or something else.
    """
    value = required(fields, name)
    if not isinstance(value, list):
        raise InvalidRequestError(f"field {name!r} has to be a list")
    return value


def text(fields: Mapping[str, Any], name: str) -> str:
    """A field that has to be a text with something in it.

    Raises:
        InvalidRequestError: if it is missing, empty, or something else.
    """
    value = required(fields, name)
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequestError(f"{name} = {value!r}: has to be a text that is not empty")
    return value
