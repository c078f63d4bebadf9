"""Collections: chosen images of a project, for example those of a split."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from .database import Database, dumps, given, timestamp
from .errors import ConflictError, NotFoundError
from .listing import Condition, Listing, Table, is_in
from .projects import Projects

_COLLECTIONS = Table(
    "c.*, w.team_id, (SELECT count(*) FROM collection_items m WHERE m.collection_id = c.id) AS num",
    "collections c JOIN projects p ON p.id = c.project_id JOIN workspaces w ON w.id = "
    "p.workspace_id",
    {
        **{"id": "c.id", "name": "c.name", "projectId": "c.project_id", "type": "c.type"},
        **{"createdAt": "c.created_at", "updatedAt": "c.updated_at"},
        "description": "c.description",
    },
)


class Collections:
    """Collections of the projects.

    Args:
        database: of the instance.
        projects: of the instance.
    """

    def __init__(self, database: Database, projects: Projects) -> None:
        self._database = database
        self._projects = projects

    def create(self, project_id: int, name: str, **fields: Any) -> int:
        """Add a collection; returns its id.

        Args:
            project_id: where.
            name: not taken in this project.
            fields: `description`, `type`, `meta`, `options`.

        Raises:
            NotFoundError: if there is no such project.
            ConflictError: if the name is taken.
        """
        now = timestamp()
        with self._database.transaction():
            self._projects.require(project_id)
            self._refuse_taken(project_id, name)
            return self._database.insert(
                "collections",
                project_id=project_id,
                name=name,
                description=fields.get("description") or "",
                type=fields.get("type") or "default",
                options=dumps(fields.get("options") or {}),
                meta=dumps(fields.get("meta") or {}),
                created_at=now,
                updated_at=now,
            )

    def _refuse_taken(self, project_id: int, name: str) -> None:
        if self._database.row(
            "SELECT 1 FROM collections WHERE project_id = ? AND name = ?", (project_id, name)
        ):
            raise ConflictError(
                f"a collection named {name!r} exists already in project {project_id}; "
                "use another name"
            )

    def info(self, id_: int, *, with_meta: bool = False) -> dict[str, Any]:
        """One collection.

        Raises:
            NotFoundError: if it does not exist.
        """
        row = _COLLECTIONS.one(self._database, id_)
        if row is None:
            raise NotFoundError("collection", id_)
        return _collection(row, with_meta)

    def page(
        self, project_id: int, listing: Listing, *, type_: str = "default", with_meta: bool = False
    ) -> dict[str, Any]:
        """A page of the collections of a project; `type_` "all" is any type."""
        conditions = [Condition("c.project_id = ?", (project_id,))]
        if type_ != "all":
            conditions.append(Condition("c.type = ?", (type_,)))
        page = _COLLECTIONS.page(self._database, listing, conditions)
        return page.as_json([_collection(row, with_meta) for row in page.rows])

    def edit(self, id_: int, changes: Mapping[str, Any]) -> None:
        """Change name or description."""
        with self._database.transaction():
            info = self.info(id_)
            values = given(changes, "name", "description")
            if values.get("name", info["name"]) != info["name"]:
                self._refuse_taken(info["projectId"], values["name"])
            self._database.update("collections", id_, **values, updated_at=timestamp())

    def remove(self, id_: int) -> None:
        """Remove a collection; its images stay."""
        with self._database.transaction() as connection:
            self.info(id_)
            connection.execute("DELETE FROM collections WHERE id = ?", (id_,))

    def add_items(
        self, id_: int, items: Sequence[Mapping[str, Any]]
    ) -> tuple[list[dict[str, Any]], list[int]]:
        """Add images `{"entityId", "meta"}`.

        Returns:
            the items, and the ids that are no image of the collection's project.
        """
        with self._database.transaction() as connection:
            known = self._images(self.info(id_)["projectId"], [item["entityId"] for item in items])
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
        missing = [item["entityId"] for item in items if item["entityId"] not in known]
        return added, missing

    def remove_items(self, id_: int, ids: Sequence[int]) -> tuple[list[dict[str, Any]], list[int]]:
        """Take images out; returns the items, and the ids that were not in it."""
        with self._database.transaction() as connection:
            self.info(id_)
            removed = self._items(id_, set(ids))
            connection.executemany(
                "DELETE FROM collection_items WHERE collection_id = ? AND image_id = ?",
                [(id_, each["entityId"]) for each in removed],
            )
            self._database.update("collections", id_, updated_at=timestamp())
        found = {each["entityId"] for each in removed}
        return removed, [each for each in ids if each not in found]

    def _images(self, project_id: int, ids: Sequence[int]) -> set[int]:
        condition = is_in("i.id", ids)
        rows = self._database.rows(
            "SELECT i.id FROM images i JOIN datasets d ON d.id = i.dataset_id"
            f" WHERE d.project_id = ? AND i.archived_at IS NULL AND {condition.sql}",
            (project_id, *condition.values),
        )
        return {row["id"] for row in rows}

    def _items(self, id_: int, image_ids: set[int]) -> list[dict[str, Any]]:
        condition = is_in("image_id", list(image_ids))
        rows = self._database.rows(
            f"SELECT * FROM collection_items WHERE collection_id = ? AND {condition.sql}"
            " ORDER BY id",
            (id_, *condition.values),
        )
        return [
            {
                "id": row["id"],
                "entityId": row["image_id"],
                "imageId": row["image_id"],
                "collectionId": row["collection_id"],
                "meta": json.loads(row["meta"]),
                "createdAt": row["created_at"],
            }
            for row in rows
        ]


def _collection(row: sqlite3.Row, with_meta: bool) -> dict[str, Any]:
    record = {
        "id": row["id"],
        "name": row["name"],
        "teamId": row["team_id"],
        "projectId": row["project_id"],
        "description": row["description"],
        "type": row["type"],
        "options": json.loads(row["options"]),
        "itemsCount": row["num"],
        "createdAt": row["created_at"],
        "updatedAt": row["updated_at"],
    }
    return {**record, "meta": json.loads(row["meta"])} if with_meta else record
