"""The typed filters of `images.list`."""

from collections.abc import Mapping
from typing import Any

from .errors import InvalidRequestError
from .listing import Condition

_COLLECTION = (
    "EXISTS (SELECT 1 FROM collection_items c WHERE c.image_id = i.id AND c.collection_id = ?)",
    ("collectionId",),
)
# SQL on table `i` (images) and the fields of `data` that are its parameters, by filter type.
_FILTERS = {
    "entities_collection": _COLLECTION,
    "entities_ai_search_collection": _COLLECTION,
    "images_filename": ("instr(i.name, ?) > 0", ("value",)),
    "images_tag": (
        "EXISTS (SELECT 1 FROM image_tags t"
        " WHERE t.image_id = i.id AND (? IS NULL OR t.tag_id = ?))",
        ("tagId", "tagId"),
    ),
    "objects_class": (
        "(SELECT count(*) FROM figures f"
        " WHERE f.image_id = i.id AND (? IS NULL OR f.class_id = ?)) BETWEEN ? AND ?",
        ("classId", "classId", "from", "to"),
    ),
    "objects_tag": (
        "(SELECT count(*) FROM figure_tags t JOIN figures f ON f.id = t.figure_id"
        " WHERE f.image_id = i.id AND (? IS NULL OR t.tag_id = ?)) BETWEEN ? AND ?",
        ("tagId", "tagId", "from", "to"),
    ),
}
_DEFAULTS = {"value": "", "from": 1, "to": 1 << 31}


def image_condition(filter_: Mapping[str, Any]) -> Condition:
    """Return the condition for a filter `{"type", "data"}`.

    Raises:
        InvalidRequestError: for an unknown type.
    """
    kind, data = filter_.get("type"), filter_.get("data") or {}
    if kind not in _FILTERS:
        raise InvalidRequestError(
            f"unknown filter type {kind!r}; known types: {', '.join(_FILTERS)}"
        )
    sql, names = _FILTERS[kind]
    values = tuple(data.get(name) or _DEFAULTS.get(name) for name in names)
    return Condition(sql if data.get("include", True) else f"NOT ({sql})", values)
