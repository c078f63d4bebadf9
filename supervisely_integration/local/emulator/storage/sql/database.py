"""The SQLite file of an instance, shared by threads and processes."""

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from .schema import SCHEMA, VERSION

_BUSY_TIMEOUT_S = 60.0
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%f"


class Database:
    """Connections to one database file, one per thread.

    Writes happen in `transaction()`. A transaction takes the write lock when it begins, so its
    reads stay valid until it ends, also with other processes.

    Args:
        file: created with its tables if it does not exist.

    Raises:
        RuntimeError: if a newer version of this program created the file.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        file.touch(mode=0o600)
        file.chmod(0o600)  # of an earlier version; SQLite copies the mode to the files beside it
        self._local = threading.local()
        # Reading the version first keeps a plain start free of the write lock.
        if self._version() != VERSION:
            self._create()

    def _version(self) -> int:
        return int(self.connection.execute("PRAGMA user_version").fetchone()[0])

    def _create(self) -> None:
        with self.transaction() as connection:
            version = self._version()  # another process may have created it
            if version > VERSION:
                raise RuntimeError(
                    f"{self.file} has version {version}; this program supports up to {VERSION}. "
                    "Use the newer program or another --root"
                )
            if version < VERSION:
                for statement in SCHEMA:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {VERSION}")

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection of this thread; a forked process opens its own."""
        local = self._local
        if getattr(local, "pid", None) != os.getpid():
            connection = sqlite3.connect(
                self.file, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # a commit survives a power cut too
            connection.execute("PRAGMA foreign_keys = ON")
            local.connection, local.pid, local.depth = connection, os.getpid(), 0
        return local.connection  # type: ignore[no-any-return]

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit all changes inside, or none; can be nested.

        A nested transaction that fails rolls back its own changes; the outer one may continue.
        """
        connection = self.connection
        depth = self._local.depth
        begin, commit, undo = (
            (f"SAVEPOINT level_{depth}", f"RELEASE level_{depth}", f"ROLLBACK TO level_{depth}")
            if depth
            else ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")
        )
        connection.execute(begin)
        self._local.depth = depth + 1
        try:
            yield connection
            connection.execute(commit)
        except BaseException:
            if connection.in_transaction:  # SQLite rolls back after some errors
                connection.execute(undo)
            raise
        finally:
            self._local.depth = depth

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Return all rows of a query."""
        return self.connection.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Row | None:
        """Return the first row of a query, or None."""
        found: sqlite3.Row | None = self.connection.execute(sql, parameters).fetchone()
        return found

    def insert(self, table: str, **values: Any) -> int:
        """Add a row; return its id."""
        names = ", ".join(values)
        marks = ", ".join("?" * len(values))
        with self.transaction() as connection:
            cursor = connection.execute(
                f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values())
            )
        return int(cursor.lastrowid or 0)

    def update(self, table: str, id_: int, **values: Any) -> None:
        """Set columns of the row with this id."""
        assignments = ", ".join(f"{name} = ?" for name in values)
        with self.transaction() as connection:
            connection.execute(
                f"UPDATE {table} SET {assignments} WHERE id = ?", (*values.values(), id_)
            )

    def close(self) -> None:
        """Close the connection of this thread."""
        if getattr(self._local, "pid", None) == os.getpid():
            self._local.connection.close()
            del self._local.pid


def timestamp(after: str | None = None) -> str:
    """Return the current time in the API's format; later than `after` if that is given."""
    now = datetime.now(UTC).replace(tzinfo=None)
    if after is not None:
        now = max(now, datetime.strptime(after[:-1], _TIME_FORMAT) + timedelta(milliseconds=1))
    return _format(now)


def timestamp_in(delay: timedelta) -> str:
    """Return the time after a delay, in the format of `timestamp`."""
    return _format(datetime.now(UTC) + delay)


def _format(time: datetime) -> str:
    return f"{time.strftime(_TIME_FORMAT)[:-3]}Z"


def dumps(value: Any) -> str:
    """Serialize a value for a JSON column."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
