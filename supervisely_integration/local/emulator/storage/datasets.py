"""Datasets of a project; they can be nested."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from .resource import Json, Resource
from .sql.database import dumps, timestamp
from .sql.errors import InvalidRequestError
from .sql.listing import Condition, Table

_SUBTREE = """WITH RECURSIVE tree (id) AS (
    SELECT value FROM json_each(?)
    UNION SELECT d.id FROM datasets d JOIN tree ON d.parent_id = tree.id) SELECT id FROM tree"""

TOP_LEVEL = Condition("d.parent_id IS NULL")


class Datasets(Resource):
    """Datasets of the projects; a change of a dataset changes its project."""

    kind = "dataset"
    table = "datasets"
    scope = ("project_id", "parent_id")
    editable = ("name", "description", "customData")
    optional = frozenset({"customData"})  # the SDK uses records as dictionary keys
    query = Table(
        """d.*, p.workspace_id, w.team_id,
        (SELECT count(*) FROM images i WHERE i.dataset_id = d.id AND i.archived_at IS NULL)
            AS imagesCount,
        (SELECT CAST(ifnull(sum(i.size), 0) AS TEXT) FROM images i WHERE i.dataset_id = d.id
            AND i.archived_at IS NULL) AS size,
        (SELECT '/image-storage/' || min(i.id) FROM images i WHERE i.dataset_id = d.id
            AND i.archived_at IS NULL) AS referenceImageUrl""",
        "datasets d JOIN projects p ON p.id = d.project_id"
        " JOIN workspaces w ON w.id = p.workspace_id",
        {
            **{"id": "d.id", "name": "d.name", "title": "d.name", "description": "d.description"},
            **{"projectId": "d.project_id", "parentId": "d.parent_id"},
        },
        dates="d.",
    )
    present = Condition("d.archived_at IS NULL AND p.archived_at IS NULL")

    def create(
        self,
        project_id: int,
        name: str,
        parent_id: int | None = None,
        *,
        description: str | None = None,
        custom_data: Mapping[str, Any] | None = None,
    ) -> int:
        """Add a dataset; return its id.

        Args:
            project_id: of the project.
            name: not taken in this parent.
            parent_id: of the parent dataset; None for the top level.
            description: free text.
            custom_data: free for the client.

        Raises:
            NotFoundError: if project or parent do not exist.
            ConflictError: if the name is taken.
        """
        with self._database.transaction():
            self._store.projects.require(project_id)
            if parent_id is not None and self.require(parent_id)["project_id"] != project_id:
                raise InvalidRequestError(f"dataset {parent_id} is not in project {project_id}")
            id_ = self._insert(
                project_id=project_id,
                parent_id=parent_id,
                name=name,
                description=description or "",
                custom_data=dict(custom_data or {}),
            )
            self._store.projects.touch(project_id)
        return id_

    def _note_change(self, row: sqlite3.Row) -> None:
        self._store.projects.touch(row["project_id"])

    def subtree(self, ids: Sequence[int]) -> list[int]:
        """Return these datasets and all nested ones."""
        return [row["id"] for row in self._database.rows(_SUBTREE, (dumps(list(ids)),))]

    def paths(self, project_id: int) -> dict[int, str]:
        """Return the path "parent/child" of every dataset of a project, by id."""
        rows = self._database.rows(
            "SELECT id, name, parent_id FROM datasets WHERE project_id = ?"
            " AND archived_at IS NULL ORDER BY id",
            (project_id,),
        )
        by_id = {row["id"]: row for row in rows}

        def path(row: sqlite3.Row) -> str:
            parent = by_id.get(row["parent_id"])
            return f"{path(parent)}/{row['name']}" if parent else str(row["name"])

        return {id_: path(row) for id_, row in by_id.items()}

    def archive(self, id_: int) -> None:
        """Hide a dataset with everything nested in it."""
        now = timestamp()
        with self._database.transaction() as connection:
            project_id = self.require(id_)["project_id"]
            nested = [(now, each) for each in self.subtree([id_])]
            connection.executemany("UPDATE datasets SET archived_at = ? WHERE id = ?", nested)
            connection.executemany("UPDATE images SET archived_at = ? WHERE dataset_id = ?", nested)
            connection.executemany(
                "DELETE FROM collection_items"
                " WHERE image_id IN (SELECT id FROM images WHERE dataset_id = ?)",
                [(each,) for _, each in nested],
            )
            self._store.projects.touch(project_id)

    def remove(self, ids: Sequence[int]) -> None:
        """Delete datasets with everything nested in them."""
        with self._database.transaction():
            hashes = self._database.rows(
                "SELECT hash FROM images WHERE dataset_id IN (SELECT value FROM json_each(?))",
                (dumps(self.subtree(ids)),),
            )
            owners = self._database.rows(
                "SELECT DISTINCT project_id FROM datasets"
                " WHERE id IN (SELECT value FROM json_each(?))",
                (dumps(list(ids)),),
            )
            super().remove(ids)
            for row in owners:
                self._store.projects.touch(row["project_id"])
        self._store.blobs.sweep(row["hash"] for row in hashes)

    def _record(self, row: sqlite3.Row) -> Json:
        record = {**super()._record(row), "title": row["name"], "createdBy": 1}
        return {**record, "itemsCount": record["imagesCount"]}
