"""Projects: their meta, their settings, their end."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from .blobs import Blobs
from .database import Database, dumps, timestamp
from .errors import NameTakenError, NotFoundError
from .listing import Condition, Listing, Table
from .meta import Meta, class_ids, empty_meta, tag_ids, with_ids
from .teams import Workspaces

_PROJECTS = Table(
    """p.*, w.team_id,
    (SELECT count(*) FROM datasets d WHERE d.project_id = p.id AND d.archived_at IS NULL)
        AS num_datasets,
    (SELECT count(*) FROM images i JOIN datasets d ON d.id = i.dataset_id
        WHERE d.project_id = p.id AND i.archived_at IS NULL) AS num_images,
    (SELECT ifnull(sum(i.size), 0) FROM images i JOIN datasets d ON d.id = i.dataset_id
        WHERE d.project_id = p.id AND i.archived_at IS NULL) AS num_bytes,
    (SELECT min(i.id) FROM images i JOIN datasets d ON d.id = i.dataset_id
        WHERE d.project_id = p.id AND i.archived_at IS NULL) AS first_image,
    (SELECT json_object('id', v.id, 'version', v.version) FROM versions v
        WHERE v.project_id = p.id AND v.status = 'committed' ORDER BY v.version DESC LIMIT 1)
        AS version""",
    "projects p JOIN workspaces w ON w.id = p.workspace_id",
    {
        **{"id": "p.id", "name": "p.name", "title": "p.name", "type": "p.type"},
        **{"workspaceId": "p.workspace_id", "teamId": "w.team_id", "groupId": "w.team_id"},
        **{"createdAt": "p.created_at", "updatedAt": "p.updated_at"},
        "description": "p.description",
    },
)
_PRESENT = Condition("p.archived_at IS NULL AND w.archived_at IS NULL")
_JSON_COLUMNS = {
    "settings": "settings",
    "customData": "custom_data",
    "importSettings": "import_settings",
}
_TEXT_COLUMNS = {"name": "name", "description": "description", "readme": "readme", "type": "type"}


class Projects:
    """Projects of the workspaces.

    Args:
        database: of the instance.
        blobs: of the instance; swept when projects go.
    """

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self._database = database
        self._blobs = blobs

    def create(
        self,
        workspace_id: int,
        name: str,
        *,
        meta: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> int:
        """Add a project; returns its id.

        Args:
            workspace_id: where.
            name: not taken in this workspace.
            meta: classes and tags, ids optional.
            fields: `description`, `readme`, `settings`, `customData`, `importSettings`.

        Raises:
            NotFoundError: if there is no such workspace.
            ConflictError: if the name is taken.
        """
        now = timestamp()
        with self._database.transaction():
            Workspaces(self._database).info(workspace_id)
            self._refuse_taken(workspace_id, name)
            return self._database.insert(
                "projects",
                workspace_id=workspace_id,
                name=name,
                type="images",
                description=fields.get("description") or "",
                readme=fields.get("readme") or "",
                meta=dumps(with_ids(meta or {}, empty_meta(), self._next_id)),
                settings=dumps(fields.get("settings") or {}),
                custom_data=dumps(fields.get("customData") or {}),
                import_settings=dumps(fields.get("importSettings") or {}),
                extra="{}",
                created_at=now,
                updated_at=now,
            )

    def _refuse_taken(self, workspace_id: int, name: str) -> None:
        taken = self._database.row(
            "SELECT id FROM projects WHERE workspace_id = ? AND name = ? AND archived_at IS NULL",
            (workspace_id, name),
        )
        if taken is not None:
            raise NameTakenError(
                "a project",
                name,
                f"workspace {workspace_id}",
                remedy="use another name",
                errors=[{"id": taken["id"], "name": name}],
            )

    def _next_id(self) -> int:
        with self._database.transaction() as connection:
            return int(connection.execute("INSERT INTO meta_ids DEFAULT VALUES").lastrowid or 0)

    def _row(self, id_: int) -> sqlite3.Row:
        row = _PROJECTS.one(self._database, id_)
        if row is None or row["archived_at"]:
            raise NotFoundError("project", id_)
        return row

    def require(self, id_: int) -> None:
        """Check that a project exists; quick, `info` counts its images.

        Raises:
            NotFoundError: if it does not.
        """
        if not self._database.row(
            "SELECT 1 FROM projects WHERE id = ? AND archived_at IS NULL", (id_,)
        ):
            raise NotFoundError("project", id_)

    def info(self, id_: int) -> dict[str, Any]:
        """One project.

        Raises:
            NotFoundError: if it does not exist.
        """
        return _project(self._row(id_))

    def page(
        self, listing: Listing, *, workspace_id: int | None = None, team_id: int | None = None
    ) -> dict[str, Any]:
        """A page of the projects of a workspace, of a team, or of all."""
        conditions = [_PRESENT]
        if workspace_id is not None:
            conditions.append(Condition("p.workspace_id = ?", (workspace_id,)))
        if team_id is not None:
            conditions.append(Condition("w.team_id = ?", (team_id,)))
        page = _PROJECTS.page(self._database, listing, conditions)
        return page.as_json([_project(row) for row in page.rows])

    def edit(self, id_: int, changes: Mapping[str, Any]) -> None:
        """Change fields; unknown ones are kept as they are given.

        Args:
            id_: of the project.
            changes: `name`, `customData`, ...; `silent` leaves `updatedAt` alone.
        """
        with self._database.transaction():
            row = self._row(id_)
            if changes.get("name", row["name"]) != row["name"]:
                self._refuse_taken(row["workspace_id"], changes["name"])
            values = {c: changes[f] for f, c in _TEXT_COLUMNS.items() if changes.get(f) is not None}
            for name, column in _JSON_COLUMNS.items():
                if name in changes:
                    values[column] = dumps(changes[name] or {})
            known = {"id", "silent", *_TEXT_COLUMNS, *_JSON_COLUMNS}
            extra = {key: value for key, value in changes.items() if key not in known}
            values["extra"] = dumps({**json.loads(row["extra"]), **extra})
            self._database.update("projects", id_, **values)
            if not changes.get("silent"):
                self.touch(id_)

    def update_settings(self, id_: int, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Merge settings into those of the project; returns all."""
        with self._database.transaction():
            merged = {**json.loads(self._row(id_)["settings"]), **settings}
            self._database.update("projects", id_, settings=dumps(merged))
        return merged

    def move(self, id_: int, workspace_id: int) -> None:
        """Put a project into another workspace."""
        with self._database.transaction():
            row = self._row(id_)
            Workspaces(self._database).info(workspace_id)
            self._refuse_taken(workspace_id, row["name"])
            self._database.update("projects", id_, workspace_id=workspace_id)

    def touch(self, id_: int) -> None:
        """Note a change of the contents; `updatedAt` grows with each."""
        with self._database.transaction():
            row = self._database.row("SELECT updated_at FROM projects WHERE id = ?", (id_,))
            if row is not None:
                self._database.update("projects", id_, updated_at=timestamp(row["updated_at"]))

    def meta(self, id_: int) -> Meta:
        """Classes and tags with ids.

        Raises:
            NotFoundError: if there is no such project.
        """
        row = self._database.row(
            "SELECT meta FROM projects WHERE id = ? AND archived_at IS NULL", (id_,)
        )
        if row is None:
            raise NotFoundError("project", id_)
        meta: Meta = json.loads(row["meta"])
        return meta

    def set_meta(self, id_: int, meta: Mapping[str, Any]) -> Meta:
        """Replace classes and tags; what belongs to those that are gone, goes too.

        Args:
            id_: of the project.
            meta: in the SDK's format, ids optional.

        Returns:
            the meta with ids.
        """
        with self._database.transaction() as connection:
            old = self.meta(id_)
            new = with_ids(meta, old, self._next_id)
            self._database.update("projects", id_, meta=dumps(new))
            gone_classes = set(class_ids(old).values()) - set(class_ids(new).values())
            gone_tags = set(tag_ids(old).values()) - set(tag_ids(new).values())
            for table, column, gone in (
                ("figures", "class_id", gone_classes),
                ("image_tags", "tag_id", gone_tags),
                ("figure_tags", "tag_id", gone_tags),
            ):
                connection.executemany(
                    f"DELETE FROM {table} WHERE {column} = ?", [(each,) for each in gone]
                )
            self.touch(id_)
        return new

    def remove_meta_item(self, id_: int, kind: str, item_id: int) -> None:
        """Remove one class or tag with what belongs to it.

        Args:
            id_: of the project.
            kind: `classes` or `tags`.
            item_id: of the class or tag.
        """
        with self._database.transaction():
            meta = self.meta(id_)
            kept = [item for item in meta[kind] if item["id"] != item_id]
            if len(kept) == len(meta[kind]):
                raise NotFoundError(kind, item_id)
            self.set_meta(id_, {**meta, kind: kept})

    def archive(self, id_: int) -> None:
        """Hide a project."""
        with self._database.transaction():
            self._row(id_)
            self._database.update("projects", id_, archived_at=timestamp())

    def keep_card(self, id_: int, backup: Mapping[str, Any]) -> None:
        """Remove the contents of a project and note where their backup is."""
        with self._database.transaction() as connection:
            self._row(id_)
            hashes = self._hashes([id_])
            connection.execute("DELETE FROM datasets WHERE project_id = ?", (id_,))
            self._database.update("projects", id_, backup_archive=dumps(backup))
            self.touch(id_)
        self._blobs.sweep(hashes)

    def remove(self, ids: Sequence[int]) -> None:
        """Remove projects for ever."""
        with self._database.transaction() as connection:
            hashes = self._hashes(ids)
            connection.executemany("DELETE FROM projects WHERE id = ?", [(id_,) for id_ in ids])
        self._blobs.sweep(hashes)

    def _hashes(self, ids: Sequence[int]) -> set[str]:
        rows = self._database.rows(
            "SELECT i.hash FROM images i JOIN datasets d ON d.id = i.dataset_id"
            " WHERE d.project_id IN (SELECT value FROM json_each(?))",
            (dumps(list(ids)),),
        )
        return {row["hash"] for row in rows}


def _project(row: sqlite3.Row) -> dict[str, Any]:
    preview = f"/image-storage/{row['first_image']}" if row["first_image"] else "/image-storage/0"
    return {
        "id": row["id"],
        "name": row["name"],
        "title": row["name"],
        "description": row["description"],
        "readme": row["readme"],
        "workspaceId": row["workspace_id"],
        "teamId": row["team_id"],
        "type": row["type"],
        "size": str(row["num_bytes"]),
        "imagesCount": row["num_images"],
        "itemsCount": row["num_images"],
        "datasetsCount": row["num_datasets"],
        # Relative: the server puts its address in front.
        "referenceImageUrl": preview,
        "settings": json.loads(row["settings"]),
        "customData": json.loads(row["custom_data"]),
        "importSettings": json.loads(row["import_settings"]),
        "backupArchive": json.loads(row["backup_archive"] or "null"),
        "version": json.loads(row["version"] or "null"),
        "createdBy": 1,
        "createdAt": row["created_at"],
        "updatedAt": row["updated_at"],
        **json.loads(row["extra"]),
    }
