"""Collections: chosen images of a project, for example those of a split."""

from collections.abc import Mapping, Sequence
from typing import Any

from .resource import Json, Resource
from .sql.database import dumps, timestamp
from .sql.listing import Table


class Collections(Resource):
    """Collections of the projects."""

    kind = "collection"
    table = "collections"
    scope = ("project_id",)
    optional = frozenset({"meta"})
    query = Table(
        "c.*, w.team_id,"
        " (SELECT count(*) FROM collection_items m WHERE m.collection_id = c.id) AS itemsCount",
        "collections c JOIN projects p ON p.id = c.project_id"
        " JOIN workspaces w ON w.id = p.workspace_id",
        {
            **{"id": "c.id", "name": "c.name", "projectId": "c.project_id", "type": "c.type"},
            "description": "c.description",
        },
        dates="c.",
    )
    present = None

    def create(self, project_id: int, name: str, **fields: Any) -> int:
        """Add a collection; return its id.

        Args:
            project_id: of the project.
            name: not taken in this project.
            fields: `description`, `type`, `meta`, `options`.

        Raises:
            NotFoundError: if the project does not exist.
            ConflictError: if the name is taken.
        """
        with self._database.transaction():
            self._store.projects.require(project_id)
            return self._insert(
                project_id=project_id,
                name=name,
                description=fields.get("description") or "",
                type=fields.get("type") or "default",
                options=fields.get("options") or {},
                meta=fields.get("meta") or {},
            )

    def remove(self, ids: Sequence[int]) -> None:
        """Delete collections; their images stay.

        Raises:
            NotFoundError: if one does not exist.
        """
        with self._database.transaction():
            for id_ in ids:
                self.require(id_)
            super().remove(ids)

    def add_items(
        self, id_: int, items: Sequence[Mapping[str, Any]]
    ) -> tuple[list[Json], list[int]]:
        """Add images `{"entityId", "meta"}`.

        Returns:
            The items, and the ids that are not images of the collection's project.
        """
        with self._database.transaction() as connection:
            project_id = self.require(id_)["project_id"]
            known = self._images(project_id, [item["entityId"] for item in items])
            connection.executemany(
                "INSERT INTO collection_items (collection_id, image_id, meta, created_at)"
                " VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET meta = excluded.meta",
                [
                    (id_, item["entityId"], dumps(item.get("meta") or {}), timestamp())
                    for item in items
                    if item["entityId"] in known
                ],
            )
            self._database.update("collections", id_, updated_at=timestamp())
            added = self._items(id_, known)
        return added, [item["entityId"] for item in items if item["entityId"] not in known]

    def remove_items(self, id_: int, ids: Sequence[int]) -> tuple[list[Json], list[int]]:
        """Remove images; return the removed items, and the ids that were not in the collection."""
        with self._database.transaction() as connection:
            self.require(id_)
            removed = self._items(id_, ids)
            connection.executemany(
                "DELETE FROM collection_items WHERE collection_id = ? AND image_id = ?",
                [(id_, each["entityId"]) for each in removed],
            )
            self._database.update("collections", id_, updated_at=timestamp())
        found = {each["entityId"] for each in removed}
        return removed, [each for each in ids if each not in found]

    def _images(self, project_id: int, ids: Sequence[int]) -> list[int]:
        rows = self._database.rows(
            "SELECT i.id FROM images i JOIN datasets d ON d.id = i.dataset_id"
            " WHERE d.project_id = ? AND i.archived_at IS NULL"
            " AND i.id IN (SELECT value FROM json_each(?))",
            (project_id, dumps(list(ids))),
        )
        return [row["id"] for row in rows]

    def _items(self, id_: int, image_ids: Sequence[int]) -> list[Json]:
        rows = self._database.rows(
            "SELECT id, image_id AS entityId, image_id, collection_id, meta, created_at"
            " FROM collection_items WHERE collection_id = ?"
            " AND image_id IN (SELECT value FROM json_each(?)) ORDER BY id",
            (id_, dumps(list(image_ids))),
        )
        return [self._record(row) for row in rows]
