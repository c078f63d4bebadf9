"""Images: a name in a dataset, and contents that several images may share."""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .blobs import Blobs, Source
from .database import Database, dumps, given, timestamp
from .datasets import Datasets
from .errors import InvalidRequestError, NameTakenError, NotFoundError
from .image_filters import image_condition
from .listing import Condition, Listing, Table, is_in
from .projects import Projects

_IMAGES = Table(
    """i.*, d.project_id,
    (SELECT count(*) FROM figures f WHERE f.image_id = i.id) AS num_figures""",
    "images i JOIN datasets d ON d.id = i.dataset_id",
    {
        **{"id": "i.id", "name": "i.name", "title": "i.name", "hash": "i.hash", "size": "i.size"},
        **{"width": "i.width", "height": "i.height", "mime": "i.mime"},
        **{"datasetId": "i.dataset_id", "projectId": "d.project_id"},
        **{"createdAt": "i.created_at", "updatedAt": "i.updated_at"},
        "description": "i.description",
        "labelsCount": "(SELECT count(*) FROM figures f WHERE f.image_id = i.id)",
    },
)
_PRESENT = Condition("i.archived_at IS NULL")


@dataclass(frozen=True)
class NewImage:
    """An image to add.

    Args:
        name: not taken in the dataset.
        hash_: of contents that the instance has.
        meta: free for the client.
        description: for people.
    """

    name: str
    hash_: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""


class Images:
    """Images of the datasets.

    Args:
        database: of the instance.
        projects: of the instance.
        datasets: of the instance.
        blobs: of the instance.
    """

    def __init__(
        self, database: Database, projects: Projects, datasets: Datasets, blobs: Blobs
    ) -> None:
        self._database = database
        self._projects = projects
        self._datasets = datasets
        self._blobs = blobs

    def store_contents(self, source: Source, name: str) -> str:
        """Keep the contents of an image for `add`; returns their hash.

        Raises:
            InvalidRequestError: if it cannot be read as an image.
        """
        with self._blobs.incoming() as incoming:
            incoming.write_from(source)
            return self._blobs.keep_image(incoming, name=name, reserve=True)

    def add(self, dataset_id: int, images: Sequence[NewImage]) -> list[int]:
        """Add images, all or none; returns their ids.

        Raises:
            NotFoundError: if there is no such dataset.
            ConflictError: if names are taken; its details name the images that have them.
            InvalidRequestError: for contents that the instance does not have.
        """
        with self._database.transaction():
            project_id = self._datasets.project_of(dataset_id)
            self._refuse_taken(dataset_id, [image.name for image in images])
            ids = [self._insert(dataset_id, image) for image in images]
            self._projects.touch(project_id)
        return ids

    def _refuse_taken(self, dataset_id: int, names: Sequence[str]) -> None:
        rows = self._database.rows(
            "SELECT id, name FROM images WHERE dataset_id = ? AND archived_at IS NULL"
            " AND name IN (SELECT value FROM json_each(?))",
            (dataset_id, dumps(list(names))),
        )
        errors = [{"id": row["id"], "name": row["name"]} for row in rows]
        if errors or len(set(names)) != len(names):
            taken = errors[0]["name"] if errors else next(n for n in names if names.count(n) > 1)
            raise NameTakenError(
                "an image",
                taken,
                f"dataset {dataset_id}",
                remedy="rename it or leave it out",
                errors=errors,
            )

    def _insert(self, dataset_id: int, image: NewImage) -> int:
        blob = self._database.row("SELECT * FROM blobs WHERE hash = ?", (image.hash_,))
        if not image.name:
            raise InvalidRequestError("an image needs a name")
        if blob is None or blob["width"] is None:
            raise InvalidRequestError(
                f"{image.name}: no image with hash {image.hash_!r} is stored; upload it first"
            )
        now = timestamp()
        return self._database.insert(
            "images",
            dataset_id=dataset_id,
            name=image.name,
            hash=image.hash_,
            mime=blob["mime"],
            size=blob["size"],
            width=blob["width"],
            height=blob["height"],
            meta=dumps(image.meta or {}),
            custom_data="{}",
            description=image.description,
            created_at=now,
            updated_at=now,
        )

    def info(self, id_: int) -> dict[str, Any]:
        """One image.

        Raises:
            NotFoundError: if it does not exist.
        """
        row = _IMAGES.one(self._database, id_)
        if row is None or row["archived_at"]:
            raise NotFoundError("image", id_)
        return self._records([row])[0]

    def infos(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        """Several images, in the order of the ids.

        Raises:
            NotFoundError: if one of them does not exist.
        """
        rows = _IMAGES.all(self._database, [_PRESENT, is_in("i.id", ids)])
        found = {record["id"]: record for record in self._records(rows)}
        for id_ in ids:
            if id_ not in found:
                raise NotFoundError("image", id_)
        return [found[id_] for id_ in ids]

    def page(
        self,
        listing: Listing,
        *,
        project_id: int | None = None,
        dataset_id: int | None = None,
        is_recursive: bool = False,
        filters: Sequence[Mapping[str, Any]] = (),
    ) -> dict[str, Any]:
        """A page of images.

        Args:
            listing: what is asked.
            project_id: of all datasets of this project.
            dataset_id: of this dataset.
            is_recursive: also of those that lie in the dataset.
            filters: `{"type", "data"}` each; see `image_filters`.

        Raises:
            InvalidRequestError: if neither project nor dataset is given.
        """
        if dataset_id is None and project_id is None:
            raise InvalidRequestError("images.list needs projectId or datasetId")
        conditions = [_PRESENT, *(image_condition(each) for each in filters)]
        if dataset_id is not None:
            inside = self._datasets.subtree([dataset_id]) if is_recursive else [dataset_id]
            conditions.append(is_in("i.dataset_id", inside))
        if project_id is not None:
            conditions.append(Condition("d.project_id = ?", (project_id,)))
        page = _IMAGES.page(self._database, listing, conditions)
        return page.as_json(self._records(page.rows))

    def contents(self, id_: int) -> tuple[Path, dict[str, Any]]:
        """The file of an image and its record."""
        info = self.info(id_)
        return self._blobs.path(info["hash"]), info

    def edit(self, id_: int, changes: Mapping[str, Any]) -> None:
        """Change `name`, `meta`, `customData` or `description`."""
        with self._database.transaction():
            info = self.info(id_)
            values = given(changes, "name", "description")
            if values.get("name", info["name"]) != info["name"]:
                self._refuse_taken(info["datasetId"], [values["name"]])
            for name, column in {"meta": "meta", "customData": "custom_data"}.items():
                if changes.get(name) is not None:
                    values[column] = dumps(changes[name])
            self._database.update("images", id_, **values, updated_at=timestamp())
            self._projects.touch(info["projectId"])

    def remove(self, ids: Sequence[int]) -> None:
        """Hide images."""
        with self._database.transaction() as connection:
            for project_id in self.projects_of(ids):
                self._projects.touch(project_id)
            connection.executemany(
                "UPDATE images SET archived_at = ? WHERE id = ?", [(timestamp(), i) for i in ids]
            )
            connection.executemany(
                "DELETE FROM collection_items WHERE image_id = ?", [(id_,) for id_ in ids]
            )

    def projects_of(self, ids: Sequence[int]) -> set[int]:
        """The projects that have these images."""
        return {row["project_id"] for row in _IMAGES.all(self._database, [is_in("i.id", ids)])}

    def _records(self, rows: Iterable[sqlite3.Row]) -> list[dict[str, Any]]:
        rows = list(rows)
        tags: dict[int, list[dict[str, Any]]] = {row["id"]: [] for row in rows}
        for tag in self._database.rows(
            "SELECT * FROM image_tags WHERE image_id IN (SELECT value FROM json_each(?))"
            " ORDER BY id",
            (dumps(list(tags)),),
        ):
            tags[tag["image_id"]].append(
                {
                    "id": tag["id"],
                    "entityId": tag["image_id"],
                    "tagId": tag["tag_id"],
                    "value": json.loads(tag["value"]),
                    "createdAt": tag["created_at"],
                    "updatedAt": tag["updated_at"],
                }
            )
        return [_image(row, tags[row["id"]]) for row in rows]


def _image(row: sqlite3.Row, tags: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": row["name"],
        "title": row["name"],
        "description": row["description"],
        "link": None,
        "hash": row["hash"],
        "mime": row["mime"],
        "ext": row["mime"].split("/")[-1],
        "size": row["size"],
        "width": row["width"],
        "height": row["height"],
        "labelsCount": row["num_figures"],
        "datasetId": row["dataset_id"],
        "projectId": row["project_id"],
        "meta": json.loads(row["meta"]),
        "customData": json.loads(row["custom_data"]),
        "tags": tags,
        # Relative: the server puts its address in front.
        "pathOriginal": f"/image-storage/{row['id']}",
        "fullStorageUrl": f"/image-storage/{row['id']}",
        "createdBy": 1,
        "createdAt": row["created_at"],
        "updatedAt": row["updated_at"],
    }
