"""What is drawn on images: figures of classes, and tags of images and figures."""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .database import Database, dumps, timestamp
from .errors import NotFoundError
from .figure_writer import FigureWriter
from .images import Images
from .listing import Condition, Listing, Table, is_in
from .projects import Projects

JsonObject = dict[str, Any]

_FIGURES = Table(
    "f.*, i.dataset_id, d.project_id",
    "figures f JOIN images i ON i.id = f.image_id JOIN datasets d ON d.id = i.dataset_id",
    {
        **{"id": "f.id", "entityId": "f.image_id", "imageId": "f.image_id"},
        **{"classId": "f.class_id", "geometryType": "f.geometry_type"},
        **{"datasetId": "i.dataset_id", "projectId": "d.project_id"},
        **{"createdAt": "f.created_at", "updatedAt": "f.updated_at"},
    },
)
_PRESENT = Condition("i.archived_at IS NULL")


class Annotations:
    """Annotations of the images.

    Args:
        database: of the instance.
        projects: of the instance.
        images: of the instance.
    """

    def __init__(self, database: Database, projects: Projects, images: Images) -> None:
        self._database = database
        self._projects = projects
        self._images = images

    def set(self, image_id: int, annotation: Mapping[str, Any]) -> None:
        """Replace figures, tags and description of an image.

        Classes and tags are found by name, else by id.

        Args:
            image_id: of the image.
            annotation: in the format of the SDK.

        Raises:
            NotFoundError: if there is no such image.
            InvalidRequestError: for a class or tag that the project does not have.
        """
        with self._database.transaction() as connection:
            info = self._images.info(image_id)
            connection.execute("DELETE FROM figures WHERE image_id = ?", (image_id,))
            connection.execute("DELETE FROM image_tags WHERE image_id = ?", (image_id,))
            writer = FigureWriter(self._database, self._projects.meta(info["projectId"]))
            for tag in annotation.get("tags") or []:
                writer.add_image_tag(image_id, tag)
            for figure in annotation.get("objects") or []:
                writer.add_figure(image_id, figure)
            description = annotation.get("description") or ""
            self._database.update(
                "images", image_id, description=description, updated_at=timestamp()
            )
            self._projects.touch(info["projectId"])

    def get(self, image_ids: Sequence[int]) -> list[JsonObject]:
        """The annotations of images, in the format of the SDK, in the order of the ids.

        Raises:
            NotFoundError: if an image does not exist.
        """
        infos = self._images.infos(image_ids)
        objects: dict[int, list[JsonObject]] = {id_: [] for id_ in image_ids}
        rows = _FIGURES.all(self._database, [is_in("f.image_id", image_ids)])
        figure_tags = self._tags("figure_tags", "figure_id", [row["id"] for row in rows])
        image_tags = self._tags("image_tags", "image_id", image_ids)
        metas = {id_: self._projects.meta(id_) for id_ in {info["projectId"] for info in infos}}
        titles = {c["id"]: c["title"] for meta in metas.values() for c in meta["classes"]}
        names = {t["id"]: t["name"] for meta in metas.values() for t in meta["tags"]}
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

    def figures(
        self, listing: Listing, *, dataset_id: int | None = None, project_id: int | None = None
    ) -> JsonObject:
        """A page of figures of a dataset or of a project."""
        conditions = [_PRESENT]
        if dataset_id is not None:
            conditions.append(Condition("i.dataset_id = ?", (dataset_id,)))
        if project_id is not None:
            conditions.append(Condition("d.project_id = ?", (project_id,)))
        page = _FIGURES.page(self._database, listing, conditions)
        return page.as_json(self._figure_records(page.rows))

    def figure(self, id_: int) -> JsonObject:
        """One figure.

        Raises:
            NotFoundError: if it does not exist.
        """
        row = _FIGURES.one(self._database, id_)
        if row is None:
            raise NotFoundError("figure", id_)
        return self._figure_records([row])[0]

    def add_figures(self, figures: Sequence[Mapping[str, Any]]) -> list[int]:
        """Add figures `{"entityId", "classId", "geometryType", "geometry"}`; returns their ids.

        The geometry may come later, with `set_geometry`.
        """
        with self._database.transaction():
            image_ids = list({figure["entityId"] for figure in figures})
            meta_of = {
                info["id"]: self._projects.meta(info["projectId"])
                for info in self._images.infos(image_ids)
            }
            ids = [
                FigureWriter(self._database, meta_of[figure["entityId"]]).add_figure(
                    figure["entityId"], {**figure, **(figure.get("geometry") or {})}
                )
                for figure in figures
            ]
            self._touch(image_ids)
        return ids

    def geometry(self, figure_id: int) -> JsonObject:
        """The shape of a figure as `figures.bulk.upload.geometry` brought it."""
        geometry: JsonObject = self.figure(figure_id)["geometry"]
        inner: JsonObject = geometry.get("bitmap", geometry)
        return inner

    def set_geometry(self, figure_id: int, geometry: Mapping[str, Any]) -> None:
        """Set the shape of a figure; masks come without the key `bitmap`."""
        with self._database.transaction():
            figure = self.figure(figure_id)
            if "data" in geometry and "origin" in geometry:
                geometry = {"bitmap": geometry}
            self._database.update(
                "figures", figure_id, geometry=dumps(geometry), updated_at=timestamp()
            )
            self._touch([figure["entityId"]])

    def remove_figures(self, ids: Sequence[int]) -> None:
        """Remove figures."""
        with self._database.transaction() as connection:
            rows = _FIGURES.all(self._database, [is_in("f.id", ids)])
            self._touch(list({row["image_id"] for row in rows}))
            connection.executemany("DELETE FROM figures WHERE id = ?", [(id_,) for id_ in ids])

    def tag_figures(self, project_id: int, tags: Iterable[Mapping[str, Any]]) -> list[int]:
        """Add tags `{"tagId", "figureId", "value"}` to figures; returns the ids of the tags."""
        with self._database.transaction():
            writer = FigureWriter(self._database, self._projects.meta(project_id))
            ids = []
            for tag in tags:
                figure = self.figure(tag["figureId"])
                ids.append(writer.add_figure_tag(figure["id"], tag))
            self._projects.touch(project_id)
        return ids

    def tag_entities(self, project_id: int, tags: Iterable[Mapping[str, Any]]) -> list[int]:
        """Add tags `{"tagId", "entityId", "value"}` to images; returns the ids of the tags."""
        with self._database.transaction():
            writer = FigureWriter(self._database, self._projects.meta(project_id))
            ids = []
            for tag in tags:
                image = self._images.info(tag["entityId"])
                ids.append(writer.add_image_tag(image["id"], tag))
            self._projects.touch(project_id)
        return ids

    def tag_images(self, image_ids: Sequence[int], tag_id: int, value: Any = None) -> None:
        """Add one tag to several images."""
        with self._database.transaction():
            for info in self._images.infos(image_ids):
                meta = self._projects.meta(info["projectId"])
                tag = {"tagId": tag_id, "value": value}
                FigureWriter(self._database, meta).add_image_tag(info["id"], tag)
            self._touch(image_ids)

    def _touch(self, image_ids: Sequence[int]) -> None:
        for project_id in self._images.projects_of(image_ids):
            self._projects.touch(project_id)

    def _figure_records(self, rows: Sequence[sqlite3.Row]) -> list[JsonObject]:
        tags = self._tags("figure_tags", "figure_id", [row["id"] for row in rows])
        return [_figure(row, [_figure_tag(tag) for tag in tags[row["id"]]]) for row in rows]

    def _tags(self, table: str, owner: str, ids: Sequence[int]) -> dict[int, list[sqlite3.Row]]:
        found: dict[int, list[sqlite3.Row]] = {id_: [] for id_ in ids}
        for row in self._database.rows(
            f"SELECT * FROM {table} WHERE {owner} IN (SELECT value FROM json_each(?)) ORDER BY id",
            (dumps(list(ids)),),
        ):
            found[row[owner]].append(row)
        return found


def _object(row: sqlite3.Row, title: str, tags: list[JsonObject]) -> JsonObject:
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


def _figure(row: sqlite3.Row, tags: list[JsonObject]) -> JsonObject:
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
        "tags": tags,
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


def _tag(row: sqlite3.Row, names: Mapping[int, str]) -> JsonObject:
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


def _figure_tag(row: sqlite3.Row) -> JsonObject:
    return {"id": row["id"], "tagId": row["tag_id"], "value": json.loads(row["value"])}
