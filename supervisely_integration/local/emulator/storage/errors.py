"""Why the store refuses something; the server turns these into the platform's error format."""

from typing import Any


class StoreError(Exception):
    """A request that cannot be answered.

    Args:
        message: what, where and the remedy, for people.
        details: more fields for `details` of the error, which the SDK reads.
    """

    status = 400

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details


class InvalidRequestError(StoreError):
    """A value that cannot be used."""


class ConflictError(StoreError):
    """A name that is taken, or a state that does not allow the change."""


class NameTakenError(ConflictError):
    """A name that something else has in the same place; the SDK reads `type` and `errors`.

    Args:
        kind: of the thing, with its article: "a dataset".
        name: the one that is taken.
        place: where it is taken: "project 3".
        remedy: what to do about it.
        errors: `{"id", "name"}` of each that has a name that is taken.
    """

    def __init__(
        self, kind: str, name: str, place: str, *, remedy: str, errors: list[dict[str, Any]]
    ) -> None:
        message = f"{kind} named {name!r} exists already in {place}; {remedy}"
        super().__init__(message, type="NONUNIQUE", errors=errors)


class NotFoundError(StoreError):
    """Something that does not exist (any more)."""

    status = 404

    def __init__(self, kind: str, key: object) -> None:
        super().__init__(f"{kind} {key!r} does not exist")
