"""Create, read, list, edit, archive and remove: the operations that all records share."""

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from .sql.database import dumps, timestamp
from .sql.errors import ConflictError, InvalidRequestError, NotFoundError
from .sql.listing import Condition, Listing, Table, is_in

if TYPE_CHECKING:
    from ..store import Store

Json = dict[str, Any]

_JSON_COLUMNS = frozenset(
    {
        *("custom_data", "meta", "settings", "import_settings", "extra", "options"),
        *("backup_archive", "geometry", "value", "target"),
    }
)


class Resource:
    """Records of one kind: a table, its API form and the scope of its names.

    Args:
        store: of the instance; resources reach each other through it.

    Attributes:
        kind: noun for error messages.
        table: SQL table that is written.
        query: SELECT that is read.
        scope: columns of `table` within which names are unique.
        editable: fields that `edit` changes.
        hidden: columns that are not part of records.
        optional: fields that lists have on request only.
        present: condition on `query` for records that are not archived; None without archive.
    """

    kind: ClassVar[str]
    table: ClassVar[str]
    query: ClassVar[Table]
    scope: ClassVar[tuple[str, ...]] = ()
    editable: ClassVar[tuple[str, ...]] = ("name", "description")
    hidden: ClassVar[frozenset[str]] = frozenset({"archived_at", "sort_key"})
    optional: ClassVar[frozenset[str]] = frozenset()
    present: ClassVar[Condition | None] = Condition("archived_at IS NULL")

    def __init__(self, store: "Store") -> None:
        self._store = store
        self._database = store.database

    def _record(self, row: sqlite3.Row) -> Json:
        """The API form of a row of `query`: camel case, JSON columns decoded."""
        return {
            camel_case(column): decode(row, column) if column in _JSON_COLUMNS else row[column]
            for column in row.keys()  # noqa: SIM118 (a Row)
            if column not in self.hidden
        }

    def _records(self, rows: Sequence[sqlite3.Row]) -> list[Json]:
        return [self._record(row) for row in rows]

    def _present(self) -> list[Condition]:
        return [] if self.present is None else [self.present]

    def require(self, id_: int) -> sqlite3.Row:
        """Return the row of `table`; faster than `info`, which counts what belongs to it.

        Raises:
            NotFoundError: if the record does not exist.
        """
        archive = "" if self.present is None else " AND archived_at IS NULL"
        row = self._database.row(f"SELECT * FROM {self.table} WHERE id = ?{archive}", (id_,))
        if row is None:
            raise NotFoundError(self.kind, id_)
        return row

    def info(self, id_: int, extra: Collection[str] | None = None) -> Json:
        """Return one record.

        Args:
            id_: of the record.
            extra: the optional fields to include; None includes all.

        Raises:
            NotFoundError: if it does not exist.
        """
        return self._select(self.infos([id_]), extra)[0]

    def infos(self, ids: Sequence[int]) -> list[Json]:
        """Return several records in the order of the ids.

        Raises:
            NotFoundError: if one of them does not exist.
        """
        conditions = [*self._present(), is_in(self.query.columns["id"], ids)]
        records = self._records(self.query.all(self._database, conditions))
        found = {record["id"]: record for record in records}
        for id_ in ids:
            if id_ not in found:
                raise NotFoundError(self.kind, id_)
        return [found[id_] for id_ in ids]

    def page(
        self,
        listing: Listing,
        conditions: Iterable[Condition] = (),
        *,
        extra: Collection[str] = (),
        **equal: Any,
    ) -> Json:
        """Return a page of records.

        Args:
            listing: filters, order and page.
            conditions: that every record meets.
            extra: the optional fields to include.
            equal: API field -> value that every record has; None matches all.
        """
        where = [*self._present(), *conditions]
        where += [
            Condition(f"{self.query.column(field)} = ?", (value,))
            for field, value in equal.items()
            if value is not None
        ]
        rows, total, after = self.query.page(self._database, listing, where)
        return {
            "total": total,
            "perPage": listing.per_page,
            "pagesCount": max(1, -(-total // listing.per_page)),
            "entities": self._select(self._records(rows), extra),
            "after": after,
        }

    def _select(self, records: list[Json], extra: Collection[str] | None) -> list[Json]:
        left_out = () if extra is None else self.optional - set(extra)
        return [{k: v for k, v in each.items() if k not in left_out} for each in records]

    def _insert(self, **values: Any) -> int:
        """Add a row whose name is unique in its scope; dicts are stored as JSON."""
        if "name" in values:
            self._check_names([values["name"]], {column: values[column] for column in self.scope})
        now = timestamp()
        stored = {k: dumps(v) if isinstance(v, dict) else v for k, v in values.items()}
        return self._database.insert(self.table, **stored, created_at=now, updated_at=now)

    def _check_names(self, names: Sequence[str], scope: Mapping[str, Any]) -> None:
        """Reject empty names and names that exist."""
        if not all(names):
            raise InvalidRequestError(f"the {self.kind} has no name")
        where = [Condition(f"{column} IS ?", (value,)) for column, value in scope.items()]
        where.append(is_in("name", names))
        if self.present is not None:
            where.append(Condition("archived_at IS NULL"))
        taken = self._database.rows(
            f"SELECT id, name FROM {self.table} WHERE {' AND '.join(each.sql for each in where)}",
            [value for each in where for value in each.values],
        )
        repeated = [] if len(set(names)) == len(names) else [n for n in names if names.count(n) > 1]
        if taken or repeated:
            owner = {k.removesuffix("_id"): v for k, v in scope.items() if v is not None}
            place = ", ".join(f"{kind} {id_}" for kind, id_ in owner.items())
            raise ConflictError(
                f"{self.kind} {(taken[0]['name'] if taken else repeated[0])!r} already exists"
                f"{place and f' in {place}'}; use another name",
                type="NONUNIQUE",  # the SDK reads this field and `errors`
                errors=[dict(row) for row in taken],
            )

    def edit(self, id_: int, changes: Mapping[str, Any]) -> None:
        """Change the fields of `editable`; a field that is None stays.

        Raises:
            NotFoundError: if the record does not exist.
            ConflictError: if the new name is taken.
        """
        with self._database.transaction():
            row = self.require(id_)
            values = {
                column: dumps(changes[field]) if column in _JSON_COLUMNS else changes[field]
                for field in self.editable
                if changes.get(field) is not None
                for column in [snake_case(field)]
            }
            if values.get("name", row["name"]) != row["name"]:
                self._check_names([values["name"]], {key: row[key] for key in self.scope})
            self._database.update(self.table, id_, **values, updated_at=timestamp())
            self._note_change(row)

    def _note_change(self, row: sqlite3.Row) -> None:
        """Called in the transaction that changes this row of `table`."""

    def archive(self, id_: int) -> None:
        """Hide a record.

        Raises:
            NotFoundError: if it does not exist.
        """
        with self._database.transaction():
            self.require(id_)
            self._database.update(self.table, id_, archived_at=timestamp())

    def remove(self, ids: Sequence[int]) -> None:
        """Delete records with everything that belongs to them."""
        with self._database.transaction() as connection:
            connection.executemany(f"DELETE FROM {self.table} WHERE id = ?", [(i,) for i in ids])


def camel_case(column: str) -> str:
    """Return the API name of a column: `created_at` -> `createdAt`."""
    first, *rest = column.split("_")
    return first + "".join(word.capitalize() for word in rest)


def snake_case(field: str) -> str:
    """Return the column name of an API field: `createdAt` -> `created_at`."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in field)


def decode(row: sqlite3.Row, column: str) -> Any:
    """Return the value of a JSON column."""
    return json.loads(row[column] or "null")
