"""Annotations: figures of classes, and tags of images and figures."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from .meta import class_ids, tag_ids
from .resource import Json, Resource
from .sql.database import Database, dumps, timestamp
from .sql.errors import InvalidRequestError
from .sql.listing import Condition, Table

# Fields of an object that are not its geometry. The geometry is stored unchanged, so that every
# shape of the SDK survives a round trip.
_SEPARATE_COLUMNS = frozenset(
    {
        *("id", "classId", "classTitle", "geometryType", "geometry", "tags"),
        *("createdAt", "updatedAt"),
    }
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


class ImageAnnotations(Resource):
    """Annotations of the images; the records of this resource are figures."""

    kind = "figure"
    table = "figures"
    query = Table(
        "f.*, i.dataset_id, d.project_id",
        "figures f JOIN images i ON i.id = f.image_id JOIN datasets d ON d.id = i.dataset_id",
        {
            **{"id": "f.id", "entityId": "f.image_id", "imageId": "f.image_id"},
            **{"classId": "f.class_id", "geometryType": "f.geometry_type"},
            **{"datasetId": "i.dataset_id", "projectId": "d.project_id"},
        },
        dates="f.",
    )
    present = Condition("i.archived_at IS NULL")

    def set(self, image_id: int, annotation: Mapping[str, Any]) -> None:
        """Replace figures, tags and description of an image.

        Classes and tags are found by name, else by id.

        Args:
            image_id: of the image.
            annotation: `objects`, `tags` and `description` in the format of the SDK.

        Raises:
            NotFoundError: if the image does not exist.
            InvalidRequestError: for a class or tag that the project does not have.
        """
        with self._database.transaction() as connection:
            info = self._store.images.info(image_id)
            connection.execute("DELETE FROM figures WHERE image_id = ?", (image_id,))
            connection.execute("DELETE FROM image_tags WHERE image_id = ?", (image_id,))
            writer = _Writer(self._database, self._store.projects.meta(info["projectId"]))
            for tag in annotation.get("tags") or []:
                writer.add_tag("image", image_id, tag)
            for figure in annotation.get("objects") or []:
                writer.add_figure(image_id, figure)
            description = annotation.get("description") or ""
            self._database.update(
                "images", image_id, description=description, updated_at=timestamp()
            )
            self._store.projects.touch(info["projectId"])

    def set_all(self, annotations: Mapping[int, Mapping[str, Any]]) -> None:
        """Replace the annotations of images, by image id; all or none."""
        with self._database.transaction():
            for image_id, annotation in annotations.items():
                self.set(image_id, annotation)

    def get(self, image_ids: Sequence[int]) -> list[Json]:
        """Return the annotations of images in the format of the SDK, in the order of the ids.

        Raises:
            NotFoundError: if an image does not exist.
        """
        infos = self._store.images.infos(image_ids)
        rows = self._database.rows(
            "SELECT * FROM figures WHERE image_id IN (SELECT value FROM json_each(?)) ORDER BY id",
            (dumps(list(image_ids)),),
        )
        figure_tags = self._tags("figure", [row["id"] for row in rows])
        image_tags = self._tags("image", image_ids)
        metas = [self._store.projects.meta(id_) for id_ in {info["projectId"] for info in infos}]
        titles = {c["id"]: c["title"] for meta in metas for c in meta["classes"]}
        names = {t["id"]: t["name"] for meta in metas for t in meta["tags"]}
        objects: dict[int, list[Json]] = {id_: [] for id_ in image_ids}
        for row in rows:
            tags = [_tag(tag, names) for tag in figure_tags[row["id"]]]
            objects[row["image_id"]].append(_object(row, titles[row["class_id"]], tags))
        return [
            {
                "imageId": info["id"],
                "imageName": info["name"],
                "datasetId": info["datasetId"],
                "createdAt": info["createdAt"],
                "updatedAt": info["updatedAt"],
                "annotation": {
                    "description": info["description"],
                    "size": {"height": info["height"], "width": info["width"]},
                    "tags": [_tag(tag, names) for tag in image_tags[info["id"]]],
                    "objects": objects[info["id"]],
                    "customBigData": {},
                },
            }
            for info in infos
        ]

    def add_figures(self, figures: Sequence[Mapping[str, Any]]) -> list[int]:
        """Add figures `{"entityId", "classId", "geometryType", "geometry"}`; return their ids.

        The geometry may come later, with `set_geometry`.
        """
        with self._writers([figure["entityId"] for figure in figures]) as writers:
            return [
                writers[figure["entityId"]].add_figure(
                    figure["entityId"], {**figure, **(figure.get("geometry") or {})}
                )
                for figure in figures
            ]

    def geometry(self, figure_id: int) -> Json:
        """Return the shape of a figure as `figures.bulk.upload.geometry` sent it."""
        geometry: Json = self.info(figure_id)["geometry"]
        inner: Json = geometry.get("bitmap", geometry)
        return inner

    def set_geometry(self, figure_id: int, geometry: Mapping[str, Any]) -> None:
        """Set the shape of a figure; masks come without the key `bitmap`."""
        with self._database.transaction():
            figure = self.info(figure_id)
            if "data" in geometry and "origin" in geometry:
                geometry = {"bitmap": geometry}
            self._database.update(
                "figures", figure_id, geometry=dumps(geometry), updated_at=timestamp()
            )
            self._store.images.touch_projects([figure["entityId"]])

    def remove(self, ids: Sequence[int]) -> None:
        """Delete figures with their tags."""
        with self._database.transaction():
            rows = self._database.rows(
                "SELECT DISTINCT image_id FROM figures"
                " WHERE id IN (SELECT value FROM json_each(?))",
                (dumps(list(ids)),),
            )
            super().remove(ids)
            self._store.images.touch_projects([row["image_id"] for row in rows])

    def tag_images(self, tags: Sequence[Mapping[str, Any]]) -> list[int]:
        """Add tags `{"tagId", "entityId", "value"}` to images; return the ids of the tags."""
        with self._writers([tag["entityId"] for tag in tags]) as writers:
            return [writers[tag["entityId"]].add_tag("image", tag["entityId"], tag) for tag in tags]

    def untag_images(self, tag_ids: Sequence[int], image_ids: Sequence[int]) -> None:
        """Remove the tags of these kinds from images."""
        with self._database.transaction() as connection:
            self._store.images.infos(list(image_ids))
            connection.execute(
                "DELETE FROM image_tags WHERE tag_id IN (SELECT value FROM json_each(?))"
                " AND image_id IN (SELECT value FROM json_each(?))",
                (dumps(list(tag_ids)), dumps(list(image_ids))),
            )
            self._store.images.touch_projects(list(image_ids))

    def tag_figures(self, tags: Sequence[Mapping[str, Any]]) -> list[int]:
        """Add tags `{"tagId", "figureId", "value"}` to figures; return the ids of the tags."""
        figures = self.infos([tag["figureId"] for tag in tags])
        image_of = {figure["id"]: figure["entityId"] for figure in figures}
        with self._writers(image_of.values()) as writers:
            return [
                writers[image_of[tag["figureId"]]].add_tag("figure", tag["figureId"], tag)
                for tag in tags
            ]

    @contextmanager
    def _writers(self, image_ids: Iterable[int]) -> Iterator[dict[int, "_Writer"]]:
        """Begin a transaction with a writer for each image."""
        with self._database.transaction():
            infos = self._store.images.infos(list(dict.fromkeys(image_ids)))
            projects = {info["projectId"] for info in infos}
            writers = {
                id_: _Writer(self._database, self._store.projects.meta(id_)) for id_ in projects
            }
            yield {info["id"]: writers[info["projectId"]] for info in infos}
            for id_ in projects:
                self._store.projects.touch(id_)

    def _tags(self, owner: str, ids: Sequence[int]) -> dict[int, list[sqlite3.Row]]:
        found: dict[int, list[sqlite3.Row]] = {id_: [] for id_ in ids}
        for row in self._database.rows(
            f"SELECT * FROM {owner}_tags WHERE {owner}_id IN (SELECT value FROM json_each(?))"
            " ORDER BY id",
            (dumps(list(ids)),),
        ):
            found[row[f"{owner}_id"]].append(row)
        return found

    def _records(self, rows: Sequence[sqlite3.Row]) -> list[Json]:
        tags = self._tags("figure", [row["id"] for row in rows])
        return [
            {
                **self._record(row),
                "tags": [
                    {"id": tag["id"], "tagId": tag["tag_id"], "value": json.loads(tag["value"])}
                    for tag in tags[row["id"]]
                ],
            }
            for row in rows
        ]

    def _record(self, row: sqlite3.Row) -> Json:
        extra = json.loads(row["extra"])
        return {
            "id": row["id"],
            "entityId": row["image_id"],
            "imageId": row["image_id"],
            "objectId": None,
            "classId": row["class_id"],
            "datasetId": row["dataset_id"],
            "projectId": row["project_id"],
            "geometryType": row["geometry_type"],
            "geometry": json.loads(row["geometry"]),
            "geometryMeta": None,
            "meta": extra.get("meta") or {},
            "priority": extra.get("priority"),
            "customData": extra.get("customData"),
            "description": extra.get("description", ""),
            "nnCreated": extra.get("nnCreated", False),
            "nnUpdated": extra.get("nnUpdated", False),
            "area": None,
            "createdAt": row["created_at"],
            "updatedAt": row["updated_at"],
        }


class _Writer:
    """Writes figures and tags of one project.

    Args:
        database: of the instance.
        meta: classes and tags of the project.
    """

    def __init__(self, database: Database, meta: Mapping[str, Any]) -> None:
        self._database = database
        self._classes = class_ids(dict(meta))
        self._tags = tag_ids(dict(meta))

    def add_figure(self, image_id: int, figure: Mapping[str, Any]) -> int:
        """Add an object of an annotation with its tags; return its id."""
        class_id = _resolve(self._classes, figure.get("classTitle"), figure.get("classId"), "class")
        if not figure.get("geometryType"):
            raise InvalidRequestError(f"image {image_id}: a figure has no geometryType")
        rest = {key: value for key, value in figure.items() if key not in _SEPARATE_COLUMNS}
        now = timestamp()
        id_ = self._database.insert(
            "figures",
            image_id=image_id,
            class_id=class_id,
            geometry_type=figure["geometryType"],
            geometry=dumps({k: v for k, v in rest.items() if k not in _NOT_GEOMETRY}),
            extra=dumps({k: v for k, v in rest.items() if k in _NOT_GEOMETRY}),
            created_at=figure.get("createdAt") or now,
            updated_at=figure.get("updatedAt") or now,
        )
        for tag in figure.get("tags") or []:
            self.add_tag("figure", id_, tag)
        return id_

    def add_tag(self, owner: str, owner_id: int, tag: Mapping[str, Any]) -> int:
        """Add a tag of an `image` or a `figure`; return its id."""
        now = timestamp()
        return self._database.insert(
            f"{owner}_tags",
            **{f"{owner}_id": owner_id},
            tag_id=_resolve(self._tags, tag.get("name"), tag.get("tagId"), "tag"),
            value=dumps(tag.get("value")),
            extra=dumps({k: v for k, v in tag.items() if k not in _TAG_COLUMNS}),
            created_at=tag.get("createdAt") or now,
            updated_at=tag.get("updatedAt") or now,
        )


def _resolve(ids: Mapping[str, int], name: object, id_: object, kind: str) -> int:
    # By name first: an annotation may have the ids of the project it was copied from.
    if isinstance(name, str) and name in ids:
        return ids[name]
    if name is None and isinstance(id_, int) and id_ in ids.values():
        return id_
    raise InvalidRequestError(
        f"the project has no {kind} {name if name is not None else id_!r}; "
        "add it with projects.meta.update first"
    )


def _object(row: sqlite3.Row, title: str, tags: list[Json]) -> Json:
    return {
        "id": row["id"],
        "classId": row["class_id"],
        "classTitle": title,
        "geometryType": row["geometry_type"],
        "labelerLogin": "local",
        "createdAt": row["created_at"],
        "updatedAt": row["updated_at"],
        "description": "",
        "tags": tags,
        **json.loads(row["extra"]),
        **json.loads(row["geometry"]),
    }


def _tag(row: sqlite3.Row, names: Mapping[int, str]) -> Json:
    return {
        "id": row["id"],
        "tagId": row["tag_id"],
        "name": names[row["tag_id"]],
        "value": json.loads(row["value"]),
        "labelerLogin": "local",
        "createdAt": row["created_at"],
        "updatedAt": row["updated_at"],
        **json.loads(row["extra"]),
    }
