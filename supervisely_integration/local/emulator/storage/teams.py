"""Teams and workspaces."""

import sqlite3

from .resource import Json, Resource
from .sql.listing import Table

TEAM_ID = 1
WORKSPACE_ID = 1


class Teams(Resource):
    """Teams; an instance has one, with the id `TEAM_ID`."""

    kind = "team"
    table = "teams"
    query = Table("*", "teams", {"id": "id", "name": "name"})

    def create(self, name: str) -> int:
        """Add a team; return its id."""
        with self._database.transaction():
            return self._insert(name=name, description="")

    def _record(self, row: sqlite3.Row) -> Json:
        usage = {"plan": "local"}
        return {**super()._record(row), "role": "admin", "roleId": 1, "usage": usage}


class Workspaces(Resource):
    """Workspaces of the teams."""

    kind = "workspace"
    table = "workspaces"
    query = Table("*", "workspaces", {"id": "id", "name": "name", "teamId": "team_id"})
    scope = ("team_id",)
    hidden = Resource.hidden | {"is_hidden"}

    def ensure_first(self) -> None:
        """Create team 1 and workspace 1 in a new instance."""
        if self._database.row("SELECT 1 FROM teams") is None:
            with self._database.transaction() as connection:
                # Another process may have created it.
                if connection.execute("SELECT 1 FROM teams").fetchone() is None:
                    self.create(self._store.teams.create("My team"), "My workspace")

    def create(self, team_id: int, name: str, description: str = "") -> int:
        """Add a workspace; return its id.

        Raises:
            NotFoundError: if the team does not exist.
            ConflictError: if the name is taken in this team.
        """
        with self._database.transaction():
            self._store.teams.require(team_id)
            return self._insert(team_id=team_id, name=name, description=description)

    def set_hidden(self, id_: int, is_hidden: bool) -> None:
        """Show or hide a workspace in lists for users."""
        with self._database.transaction():
            self.require(id_)
            self._database.update(self.table, id_, is_hidden=is_hidden)

    def _record(self, row: sqlite3.Row) -> Json:
        return {**super()._record(row), "hidden": bool(row["is_hidden"])}
