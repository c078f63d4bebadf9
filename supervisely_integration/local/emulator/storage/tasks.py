"""Tasks: runs of the app, their status, their output, what their page shows."""

import json
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import jsonpatch
import jsonpointer

from .database import Database, dumps, timestamp
from .errors import InvalidRequestError, NotFoundError
from .listing import Condition, Listing, Table
from .teams import Workspaces

STATUSES = (
    *("queued", "consumed", "started", "deployed"),
    *("error", "finished", "terminating", "stopped"),
)
_ENDED = ("error", "finished", "stopped")
_TASKS = Table(
    "*",
    "tasks",
    {
        **{"id": "id", "status": "status", "type": "type", "workspaceId": "workspace_id"},
        **{"createdAt": "created_at", "updatedAt": "updated_at", "startedAt": "started_at"},
        "appId": "json_extract(meta, '$.app.id')",
    },
)


class Tasks:
    """Tasks of the workspaces.

    Args:
        database: of the instance.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, workspace_id: int, *, app: Mapping[str, Any], state: Mapping[str, Any]) -> int:
        """Add a task for a run of an app, queued; returns its id.

        Args:
            workspace_id: where.
            app: `id`, `name`, `version` of the app that runs.
            state: what it is started with, the `modal.state` of the platform.

        Raises:
            NotFoundError: if there is no such workspace.
        """
        now = timestamp()
        meta = {
            "sessionToken": secrets.token_urlsafe(24),
            "app": dict(app),
            "params": {"state": dict(state)},
            "output": {},
        }
        with self._database.transaction():
            team_id = Workspaces(self._database).info(workspace_id)["teamId"]
            return self._database.insert(
                "tasks",
                team_id=team_id,
                workspace_id=workspace_id,
                type="app",
                status="queued",
                description="",
                meta=dumps(meta),
                settings="{}",
                data="{}",
                state="{}",
                created_at=now,
                updated_at=now,
            )

    def _row(self, id_: int) -> sqlite3.Row:
        row = _TASKS.one(self._database, id_)
        if row is None:
            raise NotFoundError("task", id_)
        return row

    def info(self, id_: int) -> dict[str, Any]:
        """One task.

        Raises:
            NotFoundError: if it does not exist.
        """
        return _task(self._row(id_))

    def page(self, listing: Listing, *, workspace_id: int | None = None) -> dict[str, Any]:
        """A page of tasks, of a workspace or all."""
        conditions = []
        if workspace_id is not None:
            conditions.append(Condition("workspace_id = ?", (workspace_id,)))
        page = _TASKS.page(self._database, listing, conditions)
        return page.as_json([_task(row) for row in page.rows])

    def set_status(self, id_: int, status: str, *, error: str | None = None) -> None:
        """Note how far a task is.

        Args:
            id_: of the task.
            status: `queued`, `consumed`, `started`, `deployed`, `error`, `finished`,
                `terminating` or `stopped`.
            error: why it failed, in one sentence.

        Raises:
            InvalidRequestError: for another status.
        """
        if status not in STATUSES:
            raise InvalidRequestError(f"{status!r} is no status; use one of {', '.join(STATUSES)}")
        now = timestamp()
        with self._database.transaction():
            row = self._row(id_)
            values: dict[str, Any] = {"status": status, "updated_at": now}
            if status == "started":
                # Started again, after a kill: it has not ended any more, and its page is a new one.
                values |= {"started_at": row["started_at"] or now, "finished_at": None}
                values |= {"error": None, "data": "{}", "state": "{}"}
            if status in _ENDED:
                values |= {"finished_at": now, "error": error}
            self._database.update("tasks", id_, **values)

    def update_meta(self, id_: int, changes: Mapping[str, Any]) -> None:
        """Merge values into the meta of a task."""
        with self._database.transaction():
            meta = {**json.loads(self._row(id_)["meta"]), **changes}
            self._database.update("tasks", id_, meta=dumps(meta), updated_at=timestamp())

    def set_output(self, id_: int, output: Mapping[str, Any]) -> dict[str, Any]:
        """Merge `experiment`, `general`, ... into the output of a task; returns all of it."""
        with self._database.transaction():
            merged = {**self.info(id_)["meta"]["output"], **output}
            self.update_meta(id_, {"output": merged})
        return merged

    def content(self, id_: int) -> dict[str, Any]:
        """What the page of a task shows: `data` and `state`."""
        row = self._row(id_)
        return {"data": json.loads(row["data"]), "state": json.loads(row["state"])}

    def apply_content(
        self, id_: int, patch: Sequence[Mapping[str, Any]], state: Mapping[str, Any] | None
    ) -> None:
        """Take over a change of the page.

        Args:
            id_: of the task.
            patch: of the data, RFC 6902.
            state: the new one; None keeps the old one.

        Raises:
            InvalidRequestError: if the patch does not fit the data.
        """
        with self._database.transaction():
            content = self.content(id_)
            try:
                data = jsonpatch.apply_patch(content["data"], list(patch)) if patch else None
            except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
                raise InvalidRequestError(f"task {id_}: the patch does not fit: {error}") from error
            values = {} if data is None else {"data": dumps(data)}
            if state:
                values["state"] = dumps(state)
            self._database.update("tasks", id_, **values, updated_at=timestamp())

    def fields(self, id_: int, names: Sequence[str]) -> dict[str, Any]:
        """Values of the page by path, such as `data.progress`; None where there is nothing."""
        content = self.content(id_)
        return {name: _lookup(content, name) for name in names}

    def set_fields(self, id_: int, fields: Sequence[Mapping[str, Any]]) -> None:
        """Set values of the page.

        Args:
            id_: of the task.
            fields: `{"field", "payload", "append", "recursive"}` each.
        """
        with self._database.transaction():
            content = self.content(id_)
            for each in fields:
                _assign(content, each)
            self._database.update(
                "tasks",
                id_,
                data=dumps(content["data"]),
                state=dumps(content["state"]),
                updated_at=timestamp(),
            )


def _lookup(content: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(content, dict) or key not in content:
            return None
        content = content[key]
    return content


def _assign(content: dict[str, Any], change: Mapping[str, Any]) -> None:
    path, payload = str(change["field"]), change["payload"]
    *parents, last = path.split(".")
    if not parents or parents[0] not in content:
        if path not in content:
            raise InvalidRequestError(f"field {path!r}: has to begin with data or state")
        parents, last = [], path
    target: Any = content
    for key in parents:
        target = target.setdefault(key, {})
    old = target.get(last)
    if change.get("append") and isinstance(old, list):
        payload = [*old, *(payload if isinstance(payload, list) else [payload])]
    elif change.get("append") and isinstance(old, dict):
        payload = {**old, **payload}
    target[last] = payload


def _task(row: sqlite3.Row) -> dict[str, Any]:
    meta = json.loads(row["meta"])
    return {
        "id": row["id"],
        "taskId": row["id"],
        "teamId": row["team_id"],
        "workspaceId": row["workspace_id"],
        "type": row["type"],
        "status": row["status"],
        "description": row["description"],
        "meta": meta,
        "settings": json.loads(row["settings"]),
        "error": row["error"],
        "agentId": None,
        "agentName": "local",
        "userId": 1,
        "createdBy": 1,
        "createdAt": row["created_at"],
        "updatedAt": row["updated_at"],
        "startedAt": row["started_at"],
        "finishedAt": row["finished_at"],
    }
