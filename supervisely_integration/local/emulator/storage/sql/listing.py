"""Lists of the API: filters, order, pages by number or by token."""

import base64
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .database import Database, dumps
from .errors import InvalidRequestError

DEFAULT_PER_PAGE = 500
MAX_PER_PAGE = 20_000
_COMPARISONS = {
    **{"=": "IS", "==": "IS", "eq": "IS", "!=": "IS NOT"},
    **{">": ">", ">=": ">=", "<": "<", "<=": "<=", "like": "LIKE"},
}
_MEMBERSHIPS = ("in", "!in", "not in", "notIn")


@dataclass(frozen=True)
class Condition:
    """A piece of a WHERE clause and its values."""

    sql: str
    values: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Listing:
    """Filters, order and page of a list request.

    Args:
        filters: `{"field", "operator", "value"}` each.
        sort: field to sort by.
        is_descending: whether the order is descending.
        page: from 1.
        per_page: items of a page.
        by_token: whether pages follow `after` instead of numbers.
        after: token of the previous page.
    """

    filters: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    sort: str = "id"
    is_descending: bool = False
    page: int = 1
    per_page: int = DEFAULT_PER_PAGE
    by_token: bool = False
    after: str | None = None

    @classmethod
    def from_request(cls, body: Mapping[str, Any]) -> "Listing":
        """Parse the body of a request.

        Raises:
            InvalidRequestError: if a number is invalid or out of range.
        """
        per_page = body.get("per_page") or body.get("perPage") or body.get("limit")
        return cls(
            filters=body.get("filter") or (),
            sort=body.get("sort") or "id",
            is_descending=str(body.get("sort_order") or "asc").lower() == "desc",
            page=_positive(body.get("page") or 1, "page"),
            per_page=min(_positive(per_page or DEFAULT_PER_PAGE, "per_page"), MAX_PER_PAGE),
            by_token=body.get("pagination_mode") == "token" or bool(body.get("after")),
            after=body.get("after"),
        )


@dataclass(frozen=True)
class Table:
    """A SELECT for lists.

    Args:
        fields: the SELECT list; the result has a column `id`.
        source: the FROM clause.
        columns: API field -> SQL expression; only these can be filtered and sorted by.
        dates: prefix of the columns `created_at` and `updated_at`, which every list has.
    """

    fields: str
    source: str
    columns: Mapping[str, str]
    dates: str = ""

    def column(self, name: str) -> str:
        """Return the SQL expression of a field.

        Raises:
            InvalidRequestError: if the list does not have the field.
        """
        dates = {"createdAt": f"{self.dates}created_at", "updatedAt": f"{self.dates}updated_at"}
        known = {**self.columns, **dates}
        if name not in known:
            raise InvalidRequestError(
                f"cannot filter or sort by {name!r}; known fields: {', '.join(known)}"
            )
        return known[name]

    def page(
        self, database: Database, listing: Listing, conditions: Sequence[Condition] = ()
    ) -> tuple[list[sqlite3.Row], int, str | None]:
        """Run the query.

        Args:
            database: of the instance.
            listing: filters, order and page.
            conditions: that every row meets.

        Returns:
            Rows of the page, number of rows of all pages, and token of the next page.

        Raises:
            InvalidRequestError: for an unknown field or operator.
        """
        where = [*conditions, *(self._condition(each) for each in listing.filters)]
        total = database.rows(
            f"SELECT count(*) FROM {self.source} WHERE {_sql(where)}", _parameters(where)
        )
        key, id_ = f"ifnull({self.column(listing.sort)}, '')", self.columns["id"]
        direction, comparison = ("DESC", "<") if listing.is_descending else ("ASC", ">")
        if listing.after is not None:
            token = Condition(f"({key}, {id_}) {comparison} (?, ?)", _read_token(listing.after))
            where.append(token)
        rows = database.rows(
            f"SELECT {self.fields}, {key} AS sort_key FROM {self.source} WHERE {_sql(where)}"
            f" ORDER BY {key} {direction}, {id_} {direction} LIMIT ? OFFSET ?",
            (
                *_parameters(where),
                listing.per_page
                + listing.by_token,  # one more row shows whether another page follows
                0 if listing.by_token else (listing.page - 1) * listing.per_page,
            ),
        )
        after = None
        if len(rows) > listing.per_page:
            rows = rows[: listing.per_page]
            after = _write_token(rows[-1])
        return rows, total[0][0], after

    def all(self, database: Database, conditions: Sequence[Condition] = ()) -> list[sqlite3.Row]:
        """Return every row that meets the conditions, by id."""
        return database.rows(
            f"SELECT {self.fields} FROM {self.source} WHERE {_sql(conditions)}"
            f" ORDER BY {self.columns['id']}",
            _parameters(conditions),
        )

    def _condition(self, filter_: Mapping[str, Any]) -> Condition:
        column = self.column(str(filter_.get("field")))
        operator, value = filter_.get("operator", "="), filter_.get("value")
        if operator in _COMPARISONS:
            return Condition(f"{column} {_COMPARISONS[operator]} ?", (_scalar(value),))
        if operator in _MEMBERSHIPS:
            values = [_scalar(each) for each in value or ()]
            condition = is_in(column, values)
            return (
                condition
                if operator == "in"
                else Condition(f"NOT ({condition.sql})", condition.values)
            )
        known = ", ".join([*_COMPARISONS, *_MEMBERSHIPS])
        raise InvalidRequestError(f"unknown filter operator {operator!r}; known: {known}")


def is_in(column: str, values: Sequence[Any]) -> Condition:
    """Return the condition that the column has one of the values."""
    # One JSON parameter: a list may exceed SQLite's limit of parameters.
    return Condition(f"{column} IN (SELECT value FROM json_each(?))", (dumps(list(values)),))


def _sql(conditions: Sequence[Condition]) -> str:
    return " AND ".join(f"({condition.sql})" for condition in conditions) or "1"


def _parameters(conditions: Sequence[Condition]) -> tuple[Any, ...]:
    return tuple(value for condition in conditions for value in condition.values)


def _scalar(value: Any) -> Any:
    if isinstance(value, dict | list):
        raise InvalidRequestError(f"cannot compare with {value!r}; use a number or a string")
    return value


def _positive(value: Any, name: str) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if number < 1:
        raise InvalidRequestError(f"{name} = {value!r}: must be an integer from 1")
    return number


def _write_token(row: sqlite3.Row) -> str:
    return base64.urlsafe_b64encode(dumps([row["sort_key"], row["id"]]).encode()).decode()


def _read_token(token: str) -> tuple[Any, ...]:
    try:
        key, id_ = json.loads(base64.urlsafe_b64decode(token))
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(
            f"after = {token!r} is not a page token; start with the first page"
        ) from error
    return key, id_
