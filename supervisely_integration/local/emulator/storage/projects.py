"""Projects with their classes and tags."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from .meta import EMPTY, Meta, class_ids, tag_ids, with_ids
from .resource import Json, Resource, decode
from .sql.database import dumps, timestamp
from .sql.listing import Condition, Table
from .statistics import project_extent, project_statistics
from .teams import WORKSPACE_ID


class Projects(Resource):
    """Projects of the workspaces."""

    kind = "project"
    table = "projects"
    scope = ("workspace_id",)
    editable = (
        *("name", "description", "readme", "type"),
        *("settings", "customData", "importSettings"),
    )
    hidden = Resource.hidden | {"meta", "extra"}
    query = Table(
        """p.*, w.team_id,
        (SELECT count(*) FROM datasets d WHERE d.project_id = p.id AND d.archived_at IS NULL)
            AS datasetsCount,
        (SELECT count(*) FROM images i JOIN datasets d ON d.id = i.dataset_id
            WHERE d.project_id = p.id AND i.archived_at IS NULL) AS imagesCount,
        (SELECT CAST(ifnull(sum(i.size), 0) AS TEXT) FROM images i
            JOIN datasets d ON d.id = i.dataset_id
            WHERE d.project_id = p.id AND i.archived_at IS NULL) AS size,
        (SELECT '/image-storage/' || ifnull(min(i.id), 0) FROM images i
            JOIN datasets d ON d.id = i.dataset_id
            WHERE d.project_id = p.id AND i.archived_at IS NULL) AS referenceImageUrl,
        (SELECT json_object('id', v.id, 'version', v.version) FROM versions v
            WHERE v.project_id = p.id AND v.status = 'committed' ORDER BY v.version DESC LIMIT 1)
            AS version""",
        "projects p JOIN workspaces w ON w.id = p.workspace_id",
        {
            **{"id": "p.id", "name": "p.name", "title": "p.name", "type": "p.type"},
            **{"workspaceId": "p.workspace_id", "teamId": "w.team_id", "groupId": "w.team_id"},
            "description": "p.description",
        },
        dates="p.",
    )
    present = Condition("p.archived_at IS NULL AND w.archived_at IS NULL")

    def create(
        self,
        name: str,
        meta: Mapping[str, Any] | None = None,
        *,
        workspace_id: int = WORKSPACE_ID,
        **fields: Any,
    ) -> int:
        """Add a project; return its id.

        Args:
            name: not taken in this workspace.
            meta: `classes` and `tags` as in `meta.json` of the Supervisely format; ids optional.
            workspace_id: of the workspace.
            fields: `description`, `readme`, `settings`, `customData`, `importSettings`.

        Raises:
            NotFoundError: if the workspace does not exist.
            ConflictError: if the name is taken.
        """
        with self._database.transaction():
            self._store.workspaces.require(workspace_id)
            return self._insert(
                workspace_id=workspace_id,
                name=name,
                type="images",
                description=fields.get("description") or "",
                readme=fields.get("readme") or "",
                meta=with_ids(meta or {}, EMPTY, self._next_id),
                settings=fields.get("settings") or {},
                custom_data=fields.get("customData") or {},
                import_settings=fields.get("importSettings") or {},
                extra={},
            )

    def free_name(self, name: str) -> str:
        """Return the name, or the name with the first free number appended."""
        rows = self._database.rows(
            "SELECT name FROM projects WHERE workspace_id = ? AND archived_at IS NULL",
            (WORKSPACE_ID,),
        )
        taken = {row["name"] for row in rows}
        candidate, number = name, 0
        while candidate in taken:
            number += 1
            candidate = f"{name}_{number:03d}"
        return candidate

    def _next_id(self) -> int:
        with self._database.transaction() as connection:
            return int(connection.execute("INSERT INTO meta_ids DEFAULT VALUES").lastrowid or 0)

    def edit(self, id_: int, changes: Mapping[str, Any]) -> None:
        """Change fields; unknown fields are stored unchanged.

        Args:
            id_: of the project.
            changes: `name`, `customData`, ...; with `silent`, `updatedAt` stays.
        """
        with self._database.transaction():
            row = self.require(id_)
            super().edit(id_, changes)
            known = {"id", "silent", *self.editable}
            unknown = {key: value for key, value in changes.items() if key not in known}
            extra = dumps({**json.loads(row["extra"]), **unknown})
            self._database.update("projects", id_, extra=extra, updated_at=row["updated_at"])
            if not changes.get("silent"):
                self.touch(id_)

    def update_settings(self, id_: int, settings: Mapping[str, Any]) -> Json:
        """Merge settings into those of the project; return all."""
        with self._database.transaction():
            merged = {**json.loads(self.require(id_)["settings"]), **settings}
            self._database.update("projects", id_, settings=dumps(merged))
        return merged

    def touch(self, id_: int) -> None:
        """Record a change of the contents: `updatedAt` increases each time."""
        with self._database.transaction():
            row = self._database.row("SELECT updated_at FROM projects WHERE id = ?", (id_,))
            if row is not None:
                self._database.update("projects", id_, updated_at=timestamp(row["updated_at"]))

    def meta(self, id_: int) -> Meta:
        """Return classes and tags with ids.

        Raises:
            NotFoundError: if the project does not exist.
        """
        meta: Meta = json.loads(self.require(id_)["meta"])
        return meta

    def set_meta(self, id_: int, meta: Mapping[str, Any]) -> Meta:
        """Replace classes and tags; figures and tags of removed ones are deleted.

        Args:
            id_: of the project.
            meta: in the SDK's format, ids optional.

        Returns:
            The meta with ids.
        """
        with self._database.transaction() as connection:
            old = self.meta(id_)
            new = with_ids(meta, old, self._next_id)
            self._database.update("projects", id_, meta=dumps(new))
            removed_classes = set(class_ids(old).values()) - set(class_ids(new).values())
            removed_tags = set(tag_ids(old).values()) - set(tag_ids(new).values())
            for table, column, removed in (
                ("figures", "class_id", removed_classes),
                ("image_tags", "tag_id", removed_tags),
                ("figure_tags", "tag_id", removed_tags),
            ):
                connection.executemany(
                    f"DELETE FROM {table} WHERE {column} = ?", [(each,) for each in removed]
                )
            self.touch(id_)
        return new

    def meta_items(
        self, id_: int, kind: str, filters: Sequence[Mapping[str, Any]] = ()
    ) -> list[Json]:
        """Return the `classes` or `tags` of a project as records, filtered by equality.

        Raises:
            NotFoundError: if the project does not exist.
        """
        row = self.require(id_)
        common = {"createdAt": row["created_at"], "updatedAt": row["updated_at"]}
        items = [
            {"description": "", "settings": {}, "projectId": id_, **item, **common}
            for item in json.loads(row["meta"])[kind]
        ]
        if kind == "classes":
            items = [{**item, "name": item["title"]} for item in items]
        for each in filters:
            items = [item for item in items if item.get(each.get("field")) == each.get("value")]
        return items

    def statistics(self, id_: int) -> Json:
        """Return counts by class, tag and dataset, as `projects.stats` answers them.

        Raises:
            NotFoundError: if the project does not exist.
        """
        return project_statistics(self._database, id_, self.meta(id_))

    def extent(self, id_: int) -> tuple[int, int, float]:
        """Return the longest image side in pixels, and the most and the mean objects per image."""
        return project_extent(self._database, id_)

    def remove(self, ids: Sequence[int]) -> None:
        """Delete projects with everything that belongs to them."""
        with self._database.transaction():
            hashes = self._database.rows(
                "SELECT i.hash FROM images i JOIN datasets d ON d.id = i.dataset_id"
                " WHERE d.project_id IN (SELECT value FROM json_each(?))",
                (dumps(list(ids)),),
            )
            super().remove(ids)
        self._store.blobs.sweep(row["hash"] for row in hashes)

    def _record(self, row: sqlite3.Row) -> Json:
        return {
            **super()._record(row),
            **{"title": row["name"], "itemsCount": row["imagesCount"], "createdBy": 1},
            **{"version": decode(row, "version"), **decode(row, "extra")},
        }
