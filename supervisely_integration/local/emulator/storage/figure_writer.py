"""Writes the figures and tags of annotations into the tables."""

from collections.abc import Mapping
from typing import Any

from .database import Database, dumps, timestamp
from .errors import InvalidRequestError
from .meta import Meta, class_ids, tag_ids

# Fields of an object in an annotation that are not its geometry. The geometry is passed on as it
# came, so every shape of the SDK survives a round trip.
_STORED_APART = frozenset(
    {"id", "classId", "classTitle", "geometryType", "tags", "createdAt", "updatedAt"}
)
_NOT_GEOMETRY = frozenset(
    {
        *("description", "labelerLogin", "instance", "nnCreated", "nnUpdated", "smartToolInput"),
        *("customData", "priority", "status", "trackId", "meta", "entityId", "datasetId"),
    }
)
_TAG_COLUMNS = frozenset(
    {"id", "tagId", "name", "value", "createdAt", "updatedAt", "figureId", "entityId"}
)


class FigureWriter:
    """Writes figures and tags of one project.

    Args:
        database: of the instance.
        meta: classes and tags of the project.
    """

    def __init__(self, database: Database, meta: Meta) -> None:
        self._database = database
        self._classes = class_ids(meta)
        self._tags = tag_ids(meta)

    def add_figure(self, image_id: int, figure: Mapping[str, Any]) -> int:
        """Add an object of an annotation, with its tags; returns its id."""
        class_id = _resolve(self._classes, figure.get("classTitle"), figure.get("classId"), "class")
        geometry_type = figure.get("geometryType")
        if not geometry_type:
            raise InvalidRequestError(f"image {image_id}: a figure has no geometryType")
        rest = {k: v for k, v in figure.items() if k not in _STORED_APART and k != "geometry"}
        now = timestamp()
        id_ = self._database.insert(
            "figures",
            image_id=image_id,
            class_id=class_id,
            geometry_type=geometry_type,
            geometry=dumps({k: v for k, v in rest.items() if k not in _NOT_GEOMETRY}),
            extra=dumps({k: v for k, v in rest.items() if k in _NOT_GEOMETRY}),
            created_at=figure.get("createdAt") or now,
            updated_at=figure.get("updatedAt") or now,
        )
        for tag in figure.get("tags") or []:
            self.add_figure_tag(id_, tag)
        return id_

    def add_figure_tag(self, figure_id: int, tag: Mapping[str, Any]) -> int:
        """Add a tag of a figure; returns its id."""
        return self._database.insert("figure_tags", figure_id=figure_id, **self._tag_values(tag))

    def add_image_tag(self, image_id: int, tag: Mapping[str, Any]) -> int:
        """Add a tag of an image; returns its id."""
        return self._database.insert("image_tags", image_id=image_id, **self._tag_values(tag))

    def _tag_values(self, tag: Mapping[str, Any]) -> dict[str, Any]:
        now = timestamp()
        return {
            "tag_id": _resolve(self._tags, tag.get("name"), tag.get("tagId"), "tag"),
            "value": dumps(tag.get("value")),
            "extra": dumps({k: v for k, v in tag.items() if k not in _TAG_COLUMNS}),
            "created_at": tag.get("createdAt") or now,
            "updated_at": tag.get("updatedAt") or now,
        }


def _resolve(ids: Mapping[str, int], name: object, id_: object, kind: str) -> int:
    # By name first: the ids in an annotation may be those of the project it was copied from.
    if isinstance(name, str) and name in ids:
        return ids[name]
    if name is None and isinstance(id_, int) and id_ in ids.values():
        return id_
    raise InvalidRequestError(
        f"the project has no {kind} {name if name is not None else id_!r}; "
        "add it with projects.meta.update first"
    )
