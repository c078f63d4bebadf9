"""The workflow graph: what tasks took in and gave out."""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, Literal

from .database import Database, dumps, timestamp
from .errors import InvalidRequestError
from .tasks import Tasks


class Workflow:
    """Inputs and outputs of the tasks.

    Args:
        database: of the instance.
        tasks: of the instance.
    """

    def __init__(self, database: Database, tasks: Tasks) -> None:
        self._database = database
        self._tasks = tasks

    def add(self, direction: Literal["input", "output"], body: Mapping[str, Any]) -> dict[str, Any]:
        """Note that a task took in, or gave out, something.

        Args:
            direction: which of both.
            body: `node {type, id}`, `type` and `id` of the thing, `meta`.

        Raises:
            NotFoundError: if there is no such task.
            InvalidRequestError: if the node is no task.
        """
        node = body.get("node") or {}
        if node.get("type") != "task":
            raise InvalidRequestError(f"workflow: node {node!r} is no task")
        with self._database.transaction():
            task_id = self._tasks.info(int(node["id"]))["id"]
            id_ = self._database.insert(
                "workflow",
                task_id=task_id,
                direction=direction,
                type=str(body.get("type")),
                target=dumps(body.get("id")),
                meta=dumps(body.get("meta") or {}),
                created_at=timestamp(),
            )
        return next(each for each in self.of_task(task_id) if each["id"] == id_)

    def of_task(self, task_id: int) -> list[dict[str, Any]]:
        """All inputs and outputs of a task, the oldest first."""
        rows = self._database.rows(
            "SELECT * FROM workflow WHERE task_id = ? ORDER BY id", (task_id,)
        )
        return [_node(row) for row in rows]


def _node(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "taskId": row["task_id"],
        "direction": row["direction"],
        "type": row["type"],
        "target": json.loads(row["target"]),
        "meta": json.loads(row["meta"]),
        "createdAt": row["created_at"],
    }
