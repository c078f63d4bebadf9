"""Versions of a project: snapshots in Team Files, written by one client at a time."""

import secrets
import sqlite3
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from .database import Database, timestamp, timestamp_in
from .errors import ConflictError, InvalidRequestError, NotFoundError
from .listing import Condition, Listing, Table
from .projects import Projects

_RESERVATION = timedelta(minutes=10)  # a client that was killed blocks the others no longer
_VERSIONS = Table(
    "v.*, w.team_id",
    "versions v JOIN projects p ON p.id = v.project_id JOIN workspaces w ON w.id = p.workspace_id",
    {
        **{"id": "v.id", "version": "v.version", "name": "v.title", "projectId": "v.project_id"},
        **{"status": "v.status", "createdAt": "v.created_at", "teamFileId": "v.team_file_id"},
    },
)


class Versions:
    """Versions of the projects.

    Args:
        database: of the instance.
        projects: of the instance.
    """

    def __init__(self, database: Database, projects: Projects) -> None:
        self._database = database
        self._projects = projects

    def reserve(self, project_id: int) -> dict[str, Any]:
        """Begin a version; returns its `id` and `commitToken`.

        Raises:
            NotFoundError: if there is no such project.
            ConflictError: if nothing has changed since the last one, or another is being written.
        """
        with self._database.transaction() as connection:
            project = self._projects.info(project_id)
            connection.execute(
                "DELETE FROM versions WHERE project_id = ? AND status = 'reserved'"
                " AND created_at < ?",
                (project_id, timestamp_in(-_RESERVATION)),
            )
            last = self._database.row(
                "SELECT * FROM versions WHERE project_id = ? ORDER BY version DESC LIMIT 1",
                (project_id,),
            )
            if last is not None:
                _refuse(last, project)
            token = secrets.token_hex(16)
            id_ = self._database.insert(
                "versions",
                project_id=project_id,
                version=last["version"] + 1 if last else 1,
                status="reserved",
                commit_token=token,
                created_at=timestamp(),
                updated_at=timestamp(),
            )
        return {"id": id_, "commitToken": token}

    def commit(self, id_: int, commit_token: str, fields: Mapping[str, Any]) -> None:
        """Finish a version.

        Args:
            id_: of the version.
            commit_token: from `reserve`.
            fields: `projectUpdatedAt`, `teamFileId`, `title`, `description`.

        Raises:
            InvalidRequestError: if it is not reserved with this token.
        """
        with self._database.transaction():
            self._refuse_unreserved(id_, commit_token)
            self._database.update(
                "versions",
                id_,
                status="committed",
                project_updated_at=fields.get("projectUpdatedAt"),
                team_file_id=fields.get("teamFileId"),
                title=fields.get("title"),
                description=fields.get("description"),
                preview_project_id=fields.get("previewProjectId"),
                updated_at=timestamp(),
            )

    def edit(self, id_: int, fields: Mapping[str, Any]) -> None:
        """Change `name`, `description` or `previewProjectId` of a version.

        Raises:
            NotFoundError: if it does not exist.
        """
        columns = {
            **{"name": "title", "description": "description"},
            "previewProjectId": "preview_project_id",
        }
        with self._database.transaction():
            if _VERSIONS.one(self._database, id_) is None:
                raise NotFoundError("version", id_)
            values = {c: fields[f] for f, c in columns.items() if fields.get(f) is not None}
            self._database.update("versions", id_, **values, updated_at=timestamp())

    def cancel(self, id_: int, commit_token: str) -> None:
        """Give a reservation back.

        Raises:
            InvalidRequestError: if it is not reserved with this token.
        """
        with self._database.transaction() as connection:
            self._refuse_unreserved(id_, commit_token)
            connection.execute("DELETE FROM versions WHERE id = ?", (id_,))

    def _refuse_unreserved(self, id_: int, commit_token: str) -> None:
        row = self._database.row(
            "SELECT commit_token FROM versions WHERE id = ? AND status = 'reserved'", (id_,)
        )
        if row is None or not secrets.compare_digest(row["commit_token"], str(commit_token)):
            raise InvalidRequestError(f"version {id_!r} is not reserved with this token")

    def page(self, project_id: int, listing: Listing) -> dict[str, Any]:
        """A page of the versions of a project."""
        conditions = [
            Condition("v.project_id = ?", (project_id,)),
            Condition("v.status = 'committed'"),
        ]
        page = _VERSIONS.page(self._database, listing, conditions)
        return page.as_json([_version(row) for row in page.rows])


def _refuse(last: sqlite3.Row, project: Mapping[str, Any]) -> None:
    if last["status"] == "reserved":
        raise ConflictError(f"project {project['id']} is already committing a version; wait for it")
    if last["project_updated_at"] == project["updatedAt"]:
        raise ConflictError(
            f"project {project['id']} has not changed since version {last['version']}; use that",
            useExistingVersion=True,
            version={"id": last["id"], "version": last["version"]},
        )


def _version(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "projectId": row["project_id"],
        "teamId": row["team_id"],
        "version": row["version"],
        "status": row["status"],
        "name": row["title"] or "",
        "description": row["description"] or "",
        "teamFileId": row["team_file_id"],
        "projectUpdatedAt": row["project_updated_at"],
        "createdBy": 1,
        "createdAt": row["created_at"],
        "updatedAt": row["updated_at"],
        "previewProjectId": row["preview_project_id"],
    }
