"""Tasks: runs of the apps with status, output, page content, and workflow nodes."""

import json
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jsonpatch
import jsonpointer

from .resource import Json, Resource
from .sql.database import dumps, timestamp
from .sql.errors import InvalidRequestError
from .sql.listing import Table
from .teams import WORKSPACE_ID

STATUSES = (
    *("queued", "consumed", "started", "deployed"),
    *("error", "finished", "terminating", "stopped"),
)
ENDED = ("error", "finished", "stopped")


class Tasks(Resource):
    """Tasks of the workspaces."""

    kind = "task"
    table = "tasks"
    query = Table(
        "*",
        "tasks",
        {
            **{"id": "id", "status": "status", "type": "type", "workspaceId": "workspace_id"},
            **{"startedAt": "started_at", "appId": "json_extract(meta, '$.app.id')"},
        },
    )
    hidden = Resource.hidden | {"data", "state"}
    present = None

    def create(
        self,
        *,
        app: Mapping[str, Any],
        state: Mapping[str, Any] | None = None,
        workspace_id: int = WORKSPACE_ID,
    ) -> int:
        """Add a queued task for a run of an app; return its id.

        Args:
            app: `id`, `name` and `version` of the app.
            state: initial settings, the platform's `modal.state`.
            workspace_id: of the workspace.

        Raises:
            NotFoundError: if the workspace does not exist.
        """
        with self._database.transaction():
            return self._insert(
                team_id=self._store.workspaces.require(workspace_id)["team_id"],
                workspace_id=workspace_id,
                type="app",
                status="queued",
                description="",
                meta={
                    "sessionToken": secrets.token_urlsafe(24),
                    "app": dict(app),
                    "params": {"state": dict(state or {})},
                    "output": {},
                },
                settings={},
                data={},
                state={},
            )

    def set_status(self, id_: int, status: str, *, error: str | None = None) -> None:
        """Set the status of a task.

        Args:
            id_: of the task.
            status: one of `STATUSES`.
            error: why the task failed, in one sentence.

        Raises:
            InvalidRequestError: for another status.
        """
        if status not in STATUSES:
            raise InvalidRequestError(
                f"unknown status {status!r}; use one of {', '.join(STATUSES)}"
            )
        now = timestamp()
        with self._database.transaction():
            row = self.require(id_)
            values: dict[str, Any] = {"status": status, "updated_at": now}
            if status == "started":  # also restarted after a kill, with a new page
                values |= {"started_at": row["started_at"] or now, "finished_at": None}
                values |= {"error": None, "data": "{}", "state": "{}"}
            if status in ENDED:
                values |= {"finished_at": now, "error": error}
            self._database.update("tasks", id_, **values)

    def update_meta(self, id_: int, changes: Mapping[str, Any]) -> None:
        """Merge values into the meta of a task."""
        with self._database.transaction():
            meta = {**json.loads(self.require(id_)["meta"]), **changes}
            self._database.update("tasks", id_, meta=dumps(meta), updated_at=timestamp())

    def set_output(self, id_: int, output: Mapping[str, Any]) -> Json:
        """Merge `experiment`, `general`, ... into the output of a task; return all of it."""
        with self._database.transaction():
            merged = {**json.loads(self.require(id_)["meta"])["output"], **output}
            self.update_meta(id_, {"output": merged})
        return merged

    def content(self, id_: int) -> Json:
        """Return the page content of a task: `data` and `state`."""
        row = self.require(id_)
        return {"data": json.loads(row["data"]), "state": json.loads(row["state"])}

    def patch_content(self, id_: int, changes: Mapping[str, Any]) -> None:
        """Apply a change of the page content.

        Args:
            id_: of the task.
            changes: `data`, an RFC 6902 patch, and `state`, the new state; both are optional.

        Raises:
            InvalidRequestError: if the patch does not fit the data.
        """
        with self._database.transaction():
            content = self.content(id_)
            try:
                if changes.get("data"):
                    content["data"] = jsonpatch.apply_patch(content["data"], changes["data"])
            except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
                raise InvalidRequestError(f"task {id_}: the patch does not fit: {error}") from error
            content["state"] = changes.get("state") or content["state"]
            self._set_content(id_, content)

    def fields(self, id_: int, names: Sequence[str]) -> Json:
        """Return page values by path, such as `data.progress`; None where there is no value."""
        content = self.content(id_)
        return {name: _lookup(content, name) for name in names}

    def set_fields(self, id_: int, fields: Sequence[Mapping[str, Any]]) -> None:
        """Set page values.

        Args:
            id_: of the task.
            fields: `{"field", "payload", "append", "recursive"}` each.
        """
        with self._database.transaction():
            content = self.content(id_)
            for each in fields:
                _assign(content, each)
            self._set_content(id_, content)

    def _set_content(self, id_: int, content: Mapping[str, Any]) -> None:
        stored = {key: dumps(content[key]) for key in ("data", "state")}
        self._database.update("tasks", id_, **stored, updated_at=timestamp())

    def add_node(self, direction: Literal["input", "output"], body: Mapping[str, Any]) -> Json:
        """Add an input or output of a task to the workflow graph; return the node.

        Args:
            direction: of the node.
            body: `node {type, id}`, `type` and `id` of the data, `meta`.

        Raises:
            NotFoundError: if the task does not exist.
            InvalidRequestError: if the node is not a task.
        """
        node = body.get("node") or {}
        if node.get("type") != "task":
            raise InvalidRequestError(f"workflow: node {node!r} is not a task")
        task_id = self.require(int(node["id"]))["id"]
        id_ = self._database.insert(
            "workflow",
            task_id=task_id,
            direction=direction,
            type=str(body.get("type")),
            target=dumps(body.get("id")),
            meta=dumps(body.get("meta") or {}),
            created_at=timestamp(),
        )
        return next(each for each in self.nodes(task_id) if each["id"] == id_)

    def nodes(self, task_id: int) -> list[Json]:
        """Return all workflow inputs and outputs of a task, oldest first."""
        sql = "SELECT * FROM workflow WHERE task_id = ? ORDER BY id"
        return [super(Tasks, self)._record(row) for row in self._database.rows(sql, (task_id,))]

    def _record(self, row: sqlite3.Row) -> Json:
        agent = {"agentId": None, "agentName": "local", "userId": 1, "createdBy": 1}
        return {**super()._record(row), **agent, "taskId": row["id"]}


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
            raise InvalidRequestError(f"field {path!r} must begin with data or state")
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
