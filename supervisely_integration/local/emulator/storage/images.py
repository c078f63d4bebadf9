"""Images: a name in a dataset, and contents that several images may share."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .blobs import Source
from .resource import Json, Resource
from .sql.database import dumps, timestamp
from .sql.errors import InvalidRequestError
from .sql.image_filters import image_condition
from .sql.listing import Condition, Listing, Table, is_in


@dataclass(frozen=True)
class NewImage:
    """An image to add.

    Args:
        name: not taken in the dataset.
        hash_: of stored contents.
        meta: free for the client.
        description: free text.
    """

    name: str
    hash_: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""


class Images(Resource):
    """Images of the datasets."""

    kind = "image"
    table = "images"
    scope = ("dataset_id",)
    editable = ("name", "description", "meta", "customData")
    query = Table(
        """i.*, d.project_id,
        (SELECT count(*) FROM figures f WHERE f.image_id = i.id) AS labelsCount""",
        "images i JOIN datasets d ON d.id = i.dataset_id",
        {
            **{"id": "i.id", "name": "i.name", "title": "i.name", "hash": "i.hash"},
            **{"width": "i.width", "height": "i.height", "mime": "i.mime", "size": "i.size"},
            **{"datasetId": "i.dataset_id", "projectId": "d.project_id"},
            "description": "i.description",
            "labelsCount": "(SELECT count(*) FROM figures f WHERE f.image_id = i.id)",
        },
        dates="i.",
    )
    present = Condition("i.archived_at IS NULL")

    def store_contents(self, source: Source, name: str) -> str:
        """Store the contents of an image for `add`; return their hash.

        Raises:
            InvalidRequestError: if the source cannot be decoded as an image.
            OSError: if the local file cannot be read.
        """
        with self._store.blobs.incoming() as incoming:
            incoming.write_from(source)
            return self._store.blobs.keep_image(incoming, name=name, reserve=True)

    def create(
        self,
        dataset_id: int,
        name: str,
        source: Source,
        *,
        meta: Mapping[str, Any] | None = None,
    ) -> int:
        """Add an image; return its id. Equal contents are stored once.

        Args:
            dataset_id: of the dataset.
            name: not taken in the dataset, with an extension.
            source: a local file, or the contents of one.
            meta: free for the client.

        Raises:
            InvalidRequestError: if the source cannot be decoded as an image.
            ConflictError: if the name is taken.
            OSError: if the local file cannot be read.
        """
        hash_ = self.store_contents(source, name)
        return self.add(dataset_id, [NewImage(name, hash_, meta or {})])[0]

    def add(self, dataset_id: int, images: Sequence[NewImage]) -> list[int]:
        """Add images with stored contents, all or none; return their ids.

        Raises:
            NotFoundError: if the dataset does not exist.
            ConflictError: if names are taken; its details name the images that have them.
            InvalidRequestError: for contents that are not stored.
        """
        with self._database.transaction():
            project_id = self._store.datasets.require(dataset_id)["project_id"]
            self._check_names([image.name for image in images], {"dataset_id": dataset_id})
            ids = [self._add(dataset_id, image) for image in images]
            self._store.projects.touch(project_id)
        return ids

    def _add(self, dataset_id: int, image: NewImage) -> int:
        blob = self._database.row("SELECT * FROM blobs WHERE hash = ?", (image.hash_,))
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

    def select(
        self,
        listing: Listing,
        *,
        project_id: int | None = None,
        dataset_id: int | None = None,
        is_recursive: bool = False,
        filters: Sequence[Mapping[str, Any]] = (),
    ) -> Json:
        """Return a page of images of a project or a dataset.

        Args:
            listing: filters, order and page.
            project_id: of the project.
            dataset_id: of the dataset.
            is_recursive: whether to include datasets nested in the dataset.
            filters: `{"type", "data"}` each; see `image_filters`.

        Raises:
            InvalidRequestError: if neither project nor dataset is given.
        """
        if dataset_id is None and project_id is None:
            raise InvalidRequestError("images.list needs projectId or datasetId")
        conditions = [image_condition(each) for each in filters]
        if dataset_id is not None:
            nested = self._store.datasets.subtree([dataset_id]) if is_recursive else [dataset_id]
            conditions.append(is_in("i.dataset_id", nested))
        return self.page(listing, conditions, projectId=project_id)

    def contents(self, id_: int) -> tuple[Path, Json]:
        """Return the file of an image and its record."""
        info = self.info(id_)
        return self._store.blobs.path(info["hash"]), info

    def _note_change(self, row: sqlite3.Row) -> None:
        self.touch_projects([row["id"]])

    def remove(self, ids: Sequence[int]) -> None:
        """Hide images."""
        with self._database.transaction() as connection:
            self.touch_projects(ids)
            connection.executemany(
                "UPDATE images SET archived_at = ? WHERE id = ?", [(timestamp(), i) for i in ids]
            )
            connection.executemany(
                "DELETE FROM collection_items WHERE image_id = ?", [(id_,) for id_ in ids]
            )

    def touch_projects(self, ids: Sequence[int]) -> None:
        """Record a change in the projects of these images."""
        rows = self._database.rows(
            "SELECT DISTINCT d.project_id FROM images i JOIN datasets d ON d.id = i.dataset_id"
            " WHERE i.id IN (SELECT value FROM json_each(?))",
            (dumps(list(ids)),),
        )
        for row in rows:
            self._store.projects.touch(row["project_id"])

    def _records(self, rows: Sequence[sqlite3.Row]) -> list[Json]:
        tags: dict[int, list[Json]] = {row["id"]: [] for row in rows}
        for tag in self._database.rows(
            "SELECT id, image_id AS entityId, tag_id, value, created_at, updated_at"
            " FROM image_tags WHERE image_id IN (SELECT value FROM json_each(?)) ORDER BY id",
            (dumps(list(tags)),),
        ):
            tags[tag["entityId"]].append(super()._record(tag))
        return [{**self._record(row), "tags": tags[row["id"]]} for row in rows]

    def _record(self, row: sqlite3.Row) -> Json:
        url = f"/image-storage/{row['id']}"
        return {
            **super()._record(row),
            **{"title": row["name"], "ext": row["mime"].split("/")[-1], "link": None},
            **{"pathOriginal": url, "fullStorageUrl": url, "createdBy": 1},
        }
