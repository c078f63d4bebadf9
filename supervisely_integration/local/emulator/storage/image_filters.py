"""The typed filters of `images.list`."""

from collections.abc import Callable, Mapping
from typing import Any

from .errors import InvalidRequestError
from .listing import Condition

_MANY = 1 << 31


def image_condition(filter_: Mapping[str, Any]) -> Condition:
    """Return the condition on table `i` (images) for a filter `{"type", "data"}`.

    Raises:
        InvalidRequestError: for an unknown type.
    """
    kind, data = filter_.get("type"), filter_.get("data") or {}
    if kind not in _FILTERS:
        raise InvalidRequestError(
            f"unknown filter type {kind!r}; known types: {', '.join(_FILTERS)}"
        )
    condition = _FILTERS[kind](data)
    if data.get("include", True):
        return condition
    return Condition(f"NOT ({condition.sql})", condition.values)


def _in_collection(data: Mapping[str, Any]) -> Condition:
    return Condition(
        "EXISTS (SELECT 1 FROM collection_items c WHERE c.image_id = i.id AND c.collection_id = ?)",
        (data.get("collectionId"),),
    )


def _named(data: Mapping[str, Any]) -> Condition:
    return Condition("instr(i.name, ?) > 0", (str(data.get("value", "")),))


def _tagged(data: Mapping[str, Any]) -> Condition:
    return Condition(
        "EXISTS (SELECT 1 FROM image_tags t"
        " WHERE t.image_id = i.id AND (? IS NULL OR t.tag_id = ?))",
        (data.get("tagId"), data.get("tagId")),
    )


def _with_objects(data: Mapping[str, Any]) -> Condition:
    class_id = data.get("classId")
    return Condition(
        "(SELECT count(*) FROM figures f WHERE f.image_id = i.id AND (? IS NULL OR f.class_id = ?))"
        " BETWEEN ? AND ?",
        (class_id, class_id, *_range(data)),
    )


def _with_object_tags(data: Mapping[str, Any]) -> Condition:
    tag_id = data.get("tagId")
    return Condition(
        "(SELECT count(*) FROM figure_tags t JOIN figures f ON f.id = t.figure_id"
        " WHERE f.image_id = i.id AND (? IS NULL OR t.tag_id = ?)) BETWEEN ? AND ?",
        (tag_id, tag_id, *_range(data)),
    )


def _range(data: Mapping[str, Any]) -> tuple[int, int]:
    return int(data.get("from") or 1), int(data.get("to") or _MANY)


_FILTERS: dict[str, Callable[[Mapping[str, Any]], Condition]] = {
    "entities_collection": _in_collection,
    "entities_ai_search_collection": _in_collection,
    "images_filename": _named,
    "images_tag": _tagged,
    "objects_class": _with_objects,
    "objects_tag": _with_object_tags,
}
