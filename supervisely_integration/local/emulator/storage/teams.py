"""Teams and workspaces."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from .database import Database, given, timestamp
from .errors import ConflictError, NotFoundError
from .listing import Condition, Listing, Table

_TEAMS = Table(
    "*", "teams", {"id": "id", "name": "name", "createdAt": "created_at", "updatedAt": "updated_at"}
)
_WORKSPACES = Table(
    "*",
    "workspaces",
    {
        **{"id": "id", "name": "name", "teamId": "team_id"},
        **{"createdAt": "created_at", "updatedAt": "updated_at"},
    },
)
_PRESENT = Condition("archived_at IS NULL")


class Teams:
    """Teams; the first one exists from the start.

    Args:
        database: of the instance.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def ensure_first(self) -> None:
        """Make team 1 and workspace 1, if this instance is new."""
        if self._database.row("SELECT 1 FROM teams") is None:
            with self._database.transaction() as connection:
                if connection.execute("SELECT 1 FROM teams").fetchone() is None:
                    team = self.create("My team")
                    Workspaces(self._database).create(team, "My workspace")

    def create(self, name: str, description: str = "") -> int:
        """Add a team.

        Raises:
            ConflictError: if the name is taken.
        """
        with self._database.transaction() as connection:
            if connection.execute(
                "SELECT 1 FROM teams WHERE name = ? AND archived_at IS NULL", (name,)
            ).fetchone():
                raise ConflictError(f"a team named {name!r} exists already; use another name")
            now = timestamp()
            return self._database.insert(
                "teams", name=name, description=description, created_at=now, updated_at=now
            )

    def info(self, id_: int) -> dict[str, Any]:
        """One team.

        Raises:
            NotFoundError: if it does not exist.
        """
        row = _TEAMS.one(self._database, id_)
        if row is None or row["archived_at"]:
            raise NotFoundError("team", id_)
        return _team(row)

    def page(self, listing: Listing) -> dict[str, Any]:
        """A page of teams."""
        page = _TEAMS.page(self._database, listing, [_PRESENT])
        return page.as_json([_team(row) for row in page.rows])

    def archive(self, id_: int) -> None:
        """Hide a team."""
        self.info(id_)
        self._database.update("teams", id_, archived_at=timestamp())

    def remove(self, ids: Sequence[int]) -> None:
        """Remove teams with all that they have."""
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM teams WHERE id = ?", [(id_,) for id_ in ids])


class Workspaces:
    """Workspaces of the teams.

    Args:
        database: of the instance.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, team_id: int, name: str, description: str = "") -> int:
        """Add a workspace.

        Raises:
            NotFoundError: if there is no such team.
            ConflictError: if the name is taken in this team.
        """
        with self._database.transaction():
            Teams(self._database).info(team_id)
            self._refuse_taken(team_id, name)
            now = timestamp()
            return self._database.insert(
                "workspaces",
                team_id=team_id,
                name=name,
                description=description,
                created_at=now,
                updated_at=now,
            )

    def _refuse_taken(self, team_id: int, name: str) -> None:
        if self._database.row(
            "SELECT 1 FROM workspaces WHERE team_id = ? AND name = ? AND archived_at IS NULL",
            (team_id, name),
        ):
            raise ConflictError(f"a workspace named {name!r} exists already; use another name")

    def info(self, id_: int) -> dict[str, Any]:
        """One workspace.

        Raises:
            NotFoundError: if it does not exist.
        """
        row = _WORKSPACES.one(self._database, id_)
        if row is None or row["archived_at"]:
            raise NotFoundError("workspace", id_)
        return _workspace(row)

    def page(self, team_id: int, listing: Listing) -> dict[str, Any]:
        """A page of the workspaces of a team."""
        of_team = Condition("team_id = ?", (team_id,))
        page = _WORKSPACES.page(self._database, listing, [of_team, _PRESENT])
        return page.as_json([_workspace(row) for row in page.rows])

    def set_hidden(self, id_: int, is_hidden: bool) -> None:
        """Show or hide a workspace in lists for people."""
        self.info(id_)
        self._database.update("workspaces", id_, is_hidden=is_hidden, updated_at=timestamp())

    def edit(self, id_: int, changes: Mapping[str, Any]) -> None:
        """Change `name` or `description`.

        Raises:
            ConflictError: if the name is taken in its team.
        """
        with self._database.transaction():
            info = self.info(id_)
            values = given(changes, "name", "description")
            if values.get("name", info["name"]) != info["name"]:
                self._refuse_taken(info["teamId"], values["name"])
            self._database.update("workspaces", id_, **values, updated_at=timestamp())

    def archive(self, id_: int) -> None:
        """Hide a workspace everywhere."""
        self.info(id_)
        self._database.update("workspaces", id_, archived_at=timestamp())

    def remove(self, ids: Sequence[int]) -> None:
        """Remove workspaces with all that they have."""
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM workspaces WHERE id = ?", [(id_,) for id_ in ids])


def _team(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": row["name"],
        "description": row["description"],
        "role": "admin",
        "roleId": 1,
        "createdAt": row["created_at"],
        "updatedAt": row["updated_at"],
        "usage": {"plan": "local"},
    }


def _workspace(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": row["name"],
        "description": row["description"],
        "teamId": row["team_id"],
        "hidden": bool(row["is_hidden"]),
        "createdAt": row["created_at"],
        "updatedAt": row["updated_at"],
    }
