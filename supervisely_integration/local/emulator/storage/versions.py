"""Versions of a project: snapshots in Team Files, written by one client at a time."""

import secrets
import sqlite3
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from .resource import Json, Resource
from .sql.database import dumps, timestamp, timestamp_in
from .sql.errors import ConflictError, InvalidRequestError
from .sql.listing import Condition, Table
from .tasks import ENDED

_RESERVATION = timedelta(minutes=10)  # after that, a killed client no longer blocks the others
_OWNER = "substr(commit_token, 1, instr(commit_token, '.') - 1)"  # task, "" if it was none

COMMITTED = Condition("v.status = 'committed'")


class Versions(Resource):
    """Versions of the projects."""

    kind = "version"
    table = "versions"
    query = Table(
        "v.*, w.team_id",
        "versions v JOIN projects p ON p.id = v.project_id"
        " JOIN workspaces w ON w.id = p.workspace_id",
        {
            **{"id": "v.id", "version": "v.version", "name": "v.title"},
            **{"projectId": "v.project_id", "status": "v.status", "teamFileId": "v.team_file_id"},
        },
        dates="v.",
    )
    hidden = Resource.hidden | {"commit_token", "title"}
    present = None

    def reserve(self, project_id: int, task_id: str = "") -> Json:
        """Begin a version; return its `id` and `commitToken`.

        Reservations of tasks that ended or were restarted do not count: the client waits for two
        minutes otherwise.

        Args:
            project_id: of the project.
            task_id: of the client, if it is an app.

        Raises:
            NotFoundError: if the project does not exist.
            ConflictError: if the project has not changed since the last version, or another
                version is being written.
        """
        with self._database.transaction() as connection:
            project = self._store.projects.require(project_id)
            connection.execute(
                "DELETE FROM versions WHERE project_id = ? AND status = 'reserved'"
                f" AND (created_at < ? OR {_OWNER} = ? OR {_OWNER} IN"
                " (SELECT CAST(id AS TEXT) FROM tasks"
                " WHERE status IN (SELECT value FROM json_each(?))))",
                (project_id, timestamp_in(-_RESERVATION), task_id or None, dumps(ENDED)),
            )
            last = self._database.row(
                "SELECT * FROM versions WHERE project_id = ? ORDER BY version DESC LIMIT 1",
                (project_id,),
            )
            if last is not None:
                _check_reservable(last, project)
            token = f"{task_id}.{secrets.token_hex(16)}"
            id_ = self._insert(
                project_id=project_id,
                version=last["version"] + 1 if last else 1,
                status="reserved",
                commit_token=token,
            )
        return {"id": id_, "commitToken": token}

    def commit(self, id_: int, commit_token: str, fields: Mapping[str, Any]) -> None:
        """Finish a version.

        Args:
            id_: of the version.
            commit_token: from `reserve`.
            fields: `projectUpdatedAt`, `teamFileId`, `title`, `description`.

        Raises:
            InvalidRequestError: if the version is not reserved with this token.
        """
        with self._database.transaction():
            self._check_token(id_, commit_token)
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

    def cancel(self, id_: int, commit_token: str) -> None:
        """Cancel a reservation.

        Raises:
            InvalidRequestError: if the version is not reserved with this token.
        """
        with self._database.transaction():
            self._check_token(id_, commit_token)
            self.remove([id_])

    def _check_token(self, id_: int, commit_token: str) -> None:
        row = self._database.row(
            "SELECT commit_token FROM versions WHERE id = ? AND status = 'reserved'", (id_,)
        )
        if row is None or not secrets.compare_digest(row["commit_token"], str(commit_token)):
            raise InvalidRequestError(f"version {id_!r} is not reserved with this token")

    def _record(self, row: sqlite3.Row) -> Json:
        texts = {"name": row["title"] or "", "description": row["description"] or ""}
        return {**super()._record(row), **texts, "createdBy": 1}


def _check_reservable(last: sqlite3.Row, project: sqlite3.Row) -> None:
    if last["status"] == "reserved":
        raise ConflictError(f"project {project['id']} is already committing a version; wait for it")
    if last["project_updated_at"] == project["updated_at"]:
        raise ConflictError(
            f"project {project['id']} has not changed since version {last['version']}; use that",
            useExistingVersion=True,
            version={"id": last["id"], "version": last["version"]},
        )
