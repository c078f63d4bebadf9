"""Datasets of a project; they can lie in one another."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from .blobs import Blobs
from .database import Database, dumps, given, timestamp
from .errors import InvalidRequestError, NameTakenError, NotFoundError
from .listing import Condition, Listing, Table, is_in
from .projects import Projects

_DATASETS = Table(
    """d.*, p.workspace_id, w.team_id,
    (SELECT count(*) FROM images i WHERE i.dataset_id = d.id AND i.archived_at IS NULL)
        AS num_images,
    (SELECT ifnull(sum(i.size), 0) FROM images i WHERE i.dataset_id = d.id
        AND i.archived_at IS NULL) AS num_bytes,
    (SELECT min(i.id) FROM images i WHERE i.dataset_id = d.id AND i.archived_at IS NULL)
        AS first_image""",
    "datasets d JOIN projects p ON p.id = d.project_id JOIN workspaces w ON w.id = p.workspace_id",
    {
        **{"id": "d.id", "name": "d.name", "title": "d.name", "description": "d.description"},
        **{"projectId": "d.project_id", "parentId": "d.parent_id"},
        **{"createdAt": "d.created_at", "updatedAt": "d.updated_at"},
    },
)
_PRESENT = Condition("d.archived_at IS NULL AND p.archived_at IS NULL")
_SUBTREE = """WITH RECURSIVE tree (id) AS (
    SELECT value FROM json_each(?)
    UNION SELECT d.id FROM datasets d JOIN tree ON d.parent_id = tree.id) SELECT id FROM tree"""


class Datasets:
    """Datasets of the projects.

    Args:
        database: of the instance.
        projects: of the instance; a change of a dataset is a change of its project.
        blobs: of the instance; swept when datasets go.
    """

    def __init__(self, database: Database, projects: Projects, blobs: Blobs) -> None:
        self._database = database
        self._projects = projects
        self._blobs = blobs

    def create(
        self, project_id: int, name: str, *, parent_id: int | None = None, **fields: Any
    ) -> int:
        """Add a dataset; returns its id.

        Args:
            project_id: where.
            name: not taken in this parent.
            parent_id: dataset that it lies in; None for the top.
            fields: `description`, `customData`.

        Raises:
            NotFoundError: if project or parent do not exist.
            ConflictError: if the name is taken.
        """
        if not name:
            raise InvalidRequestError("a dataset needs a name")
        now = timestamp()
        with self._database.transaction():
            self._projects.require(project_id)
            if parent_id is not None and self.project_of(parent_id) != project_id:
                raise InvalidRequestError(f"dataset {parent_id} is not in project {project_id}")
            self._refuse_taken(project_id, parent_id, name)
            id_ = self._database.insert(
                "datasets",
                project_id=project_id,
                parent_id=parent_id,
                name=name,
                description=fields.get("description") or "",
                custom_data=dumps(fields.get("customData") or {}),
                created_at=now,
                updated_at=now,
            )
            self._projects.touch(project_id)
        return id_

    def _refuse_taken(self, project_id: int, parent_id: int | None, name: str) -> None:
        taken = self._database.row(
            "SELECT id FROM datasets WHERE project_id = ? AND parent_id IS ? AND name = ?"
            " AND archived_at IS NULL",
            (project_id, parent_id, name),
        )
        if taken is not None:
            raise NameTakenError(
                "a dataset",
                name,
                f"project {project_id}",
                remedy="use another name",
                errors=[{"id": taken["id"], "name": name}],
            )

    def project_of(self, id_: int) -> int:
        """The project of a dataset; quick, `info` counts its images.

        Raises:
            NotFoundError: if the dataset does not exist.
        """
        row = self._database.row(
            "SELECT project_id FROM datasets WHERE id = ? AND archived_at IS NULL", (id_,)
        )
        if row is None:
            raise NotFoundError("dataset", id_)
        return int(row["project_id"])

    def info(self, id_: int) -> dict[str, Any]:
        """One dataset.

        Raises:
            NotFoundError: if it does not exist.
        """
        row = _DATASETS.one(self._database, id_)
        if row is None or row["archived_at"]:
            raise NotFoundError("dataset", id_)
        return {**_dataset(row), "customData": json.loads(row["custom_data"])}

    def page(
        self,
        listing: Listing,
        *,
        project_id: int | None = None,
        is_recursive: bool = True,
        with_custom_data: bool = False,
    ) -> dict[str, Any]:
        """A page of datasets.

        Args:
            listing: what is asked.
            project_id: of this project; None for all.
            is_recursive: also those that lie in others.
            with_custom_data: the SDK asks for it, because its records have to be hashable.
        """
        conditions = [_PRESENT]
        if project_id is not None:
            conditions.append(Condition("d.project_id = ?", (project_id,)))
        if not is_recursive:
            conditions.append(Condition("d.parent_id IS NULL"))
        page = _DATASETS.page(self._database, listing, conditions)
        records = [_dataset(row) for row in page.rows]
        if with_custom_data:
            for record, row in zip(records, page.rows, strict=True):
                record["customData"] = json.loads(row["custom_data"])
        return page.as_json(records)

    def subtree(self, ids: Sequence[int]) -> list[int]:
        """These datasets and all that lie in them."""
        return [row["id"] for row in self._database.rows(_SUBTREE, (dumps(list(ids)),))]

    def edit(self, id_: int, changes: Mapping[str, Any]) -> None:
        """Change `name`, `description` or `customData`."""
        with self._database.transaction():
            info = self.info(id_)
            values = given(changes, "name", "description")
            if values.get("name", info["name"]) != info["name"]:
                self._refuse_taken(info["projectId"], info["parentId"], values["name"])
            if changes.get("customData") is not None:
                values["custom_data"] = dumps(changes["customData"])
            self._database.update("datasets", id_, **values, updated_at=timestamp())
            self._projects.touch(info["projectId"])

    def move(self, id_: int, parent_id: int | None) -> None:
        """Put a dataset into another one of its project, or to the top."""
        with self._database.transaction():
            info = self.info(id_)
            if parent_id is not None:
                if parent_id in self.subtree([id_]):
                    raise InvalidRequestError(f"dataset {id_} cannot lie in itself")
                if self.info(parent_id)["projectId"] != info["projectId"]:
                    raise InvalidRequestError("datasets cannot be moved between projects")
            self._refuse_taken(info["projectId"], parent_id, info["name"])
            self._database.update("datasets", id_, parent_id=parent_id, updated_at=timestamp())
            self._projects.touch(info["projectId"])

    def archive(self, id_: int) -> None:
        """Hide a dataset with all that lies in it."""
        now = timestamp()
        with self._database.transaction() as connection:
            info = self.info(id_)
            inside = [(now, each) for each in self.subtree([id_])]
            connection.executemany("UPDATE datasets SET archived_at = ? WHERE id = ?", inside)
            connection.executemany("UPDATE images SET archived_at = ? WHERE dataset_id = ?", inside)
            connection.executemany(
                "DELETE FROM collection_items"
                " WHERE image_id IN (SELECT id FROM images WHERE dataset_id = ?)",
                [(each,) for _, each in inside],
            )
            self._projects.touch(info["projectId"])

    def remove(self, ids: Sequence[int]) -> None:
        """Remove datasets, with all that lies in them, for ever."""
        with self._database.transaction() as connection:
            inside = self.subtree(ids)
            rows = self._database.rows(
                "SELECT hash FROM images WHERE dataset_id IN (SELECT value FROM json_each(?))",
                (dumps(inside),),
            )
            for row in _DATASETS.all(self._database, [is_in("d.id", ids)]):
                self._projects.touch(row["project_id"])
            connection.executemany("DELETE FROM datasets WHERE id = ?", [(each,) for each in ids])
        self._blobs.sweep(row["hash"] for row in rows)


def _dataset(row: sqlite3.Row) -> dict[str, Any]:
    image = row["first_image"]
    return {
        "id": row["id"],
        "name": row["name"],
        "title": row["name"],
        "description": row["description"],
        "projectId": row["project_id"],
        "workspaceId": row["workspace_id"],
        "teamId": row["team_id"],
        "parentId": row["parent_id"],
        "size": str(row["num_bytes"]),
        "imagesCount": row["num_images"],
        "itemsCount": row["num_images"],
        "referenceImageUrl": f"/image-storage/{image}" if image else None,
        "createdBy": 1,
        "createdAt": row["created_at"],
        "updatedAt": row["updated_at"],
    }
