"""Classes and tags of a project, as JSON with ids."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .sql.errors import InvalidRequestError

Meta = dict[str, Any]

EMPTY: Meta = {"classes": [], "tags": [], "projectType": "images"}


def with_ids(new: Mapping[str, Any], old: Meta, next_id: Callable[[], int]) -> Meta:
    """Return the new classes and tags, with the ids of the old ones where they are the same.

    An item is the same if it has the id of an old one, else if it has its name: the SDK uploads
    the meta of one project into another one, ids included.

    Args:
        new: meta of the request.
        old: meta of the project.
        next_id: creates an id for a new item.

    Raises:
        InvalidRequestError: if an item has no name, or a name repeats.
    """
    return {
        **old,
        "classes": _match(new.get("classes") or [], old["classes"], "title", next_id),
        "tags": _match(new.get("tags") or [], old["tags"], "name", next_id),
        "projectType": new.get("projectType") or old["projectType"],
    }


def _match(
    new: Iterable[Mapping[str, Any]],
    old: Iterable[Mapping[str, Any]],
    name_key: str,
    next_id: Callable[[], int],
) -> list[Meta]:
    ids = {item["id"] for item in old}
    by_name = {item[name_key]: item["id"] for item in old}
    result: list[Meta] = []
    names: set[str] = set()
    for item in new:
        name = item.get(name_key)
        if not isinstance(name, str) or not name or name in names:
            problem = "repeats" if name in names else "is not a name"
            raise InvalidRequestError(f"meta: {name_key} {name!r} {problem}; use unique names")
        names.add(name)
        # Names take precedence over ids, which may come from another project.
        id_ = by_name.get(name) or (item.get("id") if item.get("id") in ids else None)
        if id_ in {each["id"] for each in result}:
            id_ = None
        result.append({**item, "id": id_ or next_id()})
    return result


def class_ids(meta: Meta) -> dict[str, int]:
    """Name -> id of the classes."""
    return {item["title"]: item["id"] for item in meta["classes"]}


def tag_ids(meta: Meta) -> dict[str, int]:
    """Name -> id of the tags."""
    return {item["name"]: item["id"] for item in meta["tags"]}
