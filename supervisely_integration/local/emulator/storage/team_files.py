"""Team Files: paths of a team that refer to blobs. Folders exist only as parts of paths."""

import mimetypes
import posixpath
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .blobs import Incoming, Source
from .sql.database import timestamp
from .sql.errors import InvalidRequestError, NotFoundError

if TYPE_CHECKING:
    from ..store import Store

_MAX_PATH = 4096


def normalize(path: str) -> str:
    """Return a path from `/`, without doubled or trailing slashes, `.` or `..`.

    Raises:
        InvalidRequestError: if it is empty, leaves the team's root, or holds a NUL byte.
    """
    if not isinstance(path, str) or not path or "\0" in path or len(path) > _MAX_PATH:
        raise InvalidRequestError(f"{path!r} is not a path; use one that starts with /")
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if not parts:
                raise InvalidRequestError(f"{path}: outside of Team Files")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


class TeamFiles:
    """Files of the teams.

    Args:
        store: of the instance.
    """

    def __init__(self, store: "Store") -> None:
        self._database = store.database
        self._teams = store.teams
        self._blobs = store.blobs

    def put(self, team_id: int, path: str, incoming: Incoming) -> dict[str, Any]:
        """Store a written blob under a path, replacing an existing file; return its record.

        Raises:
            InvalidRequestError: if the path is the root, a folder, or inside a file.
        """
        path = normalize(path)
        now = timestamp()
        mime = mimetypes.guess_type(path)[0] or "application/octet-stream"
        with self._database.transaction() as connection:
            self._teams.require(team_id)
            self._check_path(team_id, path)
            old = self._row(team_id, path)
            hash_ = self._blobs.keep(incoming)
            connection.execute(
                "INSERT INTO files (team_id, path, hash, size, mime, created_at, updated_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (team_id, path) DO UPDATE SET"
                " hash = excluded.hash, size = excluded.size, updated_at = excluded.updated_at",
                (team_id, path, hash_, incoming.size, mime, now, now),
            )
        if old is not None and old["hash"] != hash_:
            self._blobs.sweep([old["hash"]])
        return self.info_by_path(team_id, path)

    def put_path(self, team_id: int, path: str, source: Source) -> dict[str, Any]:
        """Store a whole source under a path; see `put`."""
        with self._blobs.incoming() as incoming:
            incoming.write_from(source)
            return self.put(team_id, path, incoming)

    def _check_path(self, team_id: int, path: str) -> None:
        if path == "/":
            raise InvalidRequestError("a file needs a name: / is the root of Team Files")
        if self._database.row(
            f"SELECT 1 FROM files WHERE team_id = ? AND {_INSIDE} LIMIT 1",
            (team_id, *_inside(path)),
        ):
            raise InvalidRequestError(f"{path} is a folder; use another file name")
        for folder in _parents(path):
            if self._row(team_id, folder) is not None:
                raise InvalidRequestError(f"{path}: {folder} is a file, not a folder")

    def _row(self, team_id: int, path: str) -> sqlite3.Row | None:
        return self._database.row(
            "SELECT * FROM files WHERE team_id = ? AND path = ?", (team_id, path)
        )

    def info(self, id_: int) -> dict[str, Any]:
        """Return one file.

        Raises:
            NotFoundError: if it does not exist.
        """
        row = self._database.row("SELECT * FROM files WHERE id = ?", (id_,))
        if row is None:
            raise NotFoundError("file", id_)
        return _file(row)

    def info_by_path(self, team_id: int, path: str) -> dict[str, Any]:
        """Return the file at a path.

        Raises:
            NotFoundError: if there is none.
        """
        row = self._row(team_id, normalize(path))
        if row is None:
            raise NotFoundError("file", path)
        return _file(row)

    def contents(self, record: Mapping[str, Any]) -> Path:
        """Return the local file with the contents of a record."""
        return self._blobs.path(record["hash"])

    def entries(
        self, team_id: int, path: str, *, is_recursive: bool = True
    ) -> list[dict[str, Any]]:
        """Return the file at a path, or the entries of a folder; empty if neither exists.

        Args:
            team_id: of the team.
            path: of a file or a folder.
            is_recursive: whether to return all files below; else files and folders directly in
                the folder.
        """
        path = normalize(path)
        own = self._row(team_id, path)
        if own is not None:
            return [_file(own)]
        rows = self._database.rows(
            f"SELECT * FROM files WHERE team_id = ? AND {_INSIDE} ORDER BY path",
            (team_id, *_inside(path)),
        )
        return [_file(row) for row in rows] if is_recursive else _children(rows, path)

    def remove(self, team_id: int, paths: Sequence[str]) -> int:
        """Remove files, and folders with everything in them; return the number of files."""
        hashes: set[str] = set()
        with self._database.transaction() as connection:
            count = 0
            for path in map(normalize, paths):
                removed = connection.execute(
                    f"DELETE FROM files WHERE team_id = ? AND (path = ? OR {_INSIDE})"
                    " RETURNING hash",
                    (team_id, path, *_inside(path)),
                ).fetchall()
                hashes.update(row["hash"] for row in removed)
                count += len(removed)
        self._blobs.sweep(hashes)
        return count


# Ranges use the index of (team_id, path); LIKE would treat % and _ in names as wildcards.
_INSIDE = "path >= ? AND path < ?"


def _inside(path: str) -> tuple[str, str]:
    base = path.rstrip("/")
    return f"{base}/", f"{base}0"  # "0" follows "/" in ASCII


def _parents(path: str) -> Iterator[str]:
    while (path := posixpath.dirname(path)) != "/":
        yield path


def _children(rows: Sequence[sqlite3.Row], folder: str) -> list[dict[str, Any]]:
    base = folder.rstrip("/") + "/"
    children: dict[str, dict[str, Any]] = {}
    for row in rows:
        name, slash, _ = row["path"][len(base) :].partition("/")
        if not slash:
            children[name] = _file(row)
        elif name in children:
            children[name]["size"] += row["size"]
            children[name]["meta"]["size"] += row["size"]
            children[name]["updatedAt"] = max(children[name]["updatedAt"], row["updated_at"])
        else:
            children[name] = _folder(row, base + name)
    return list(children.values())


def _file(row: sqlite3.Row) -> dict[str, Any]:
    name = posixpath.basename(row["path"])
    return {
        "id": row["id"],
        "teamId": row["team_id"],
        "userId": 1,
        "name": name,
        "path": row["path"],
        "hash": row["hash"],
        "type": "file",
        "isDir": False,
        "size": row["size"],
        "meta": {
            "mime": row["mime"],
            "ext": posixpath.splitext(name)[1].lstrip("."),
            "size": row["size"],
        },
        "storagePath": f"/file-storage/{row['id']}",
        "fullStorageUrl": f"/file-storage/{row['id']}",
        "createdAt": row["created_at"],
        "updatedAt": row["updated_at"],
    }


def _folder(first: sqlite3.Row, path: str) -> dict[str, Any]:
    return {
        **_file(first),
        # Folders have no row; negative, so that it differs from all ids of files.
        "id": -first["id"],
        "name": posixpath.basename(path),
        "path": f"{path}/",
        "hash": None,
        "type": "folder",
        "isDir": True,
        "meta": {"mime": None, "ext": None, "size": first["size"]},
        "storagePath": None,
        "fullStorageUrl": None,
    }
