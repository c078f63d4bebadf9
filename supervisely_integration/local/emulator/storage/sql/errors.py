"""Storage errors; the server turns them into the platform's error format."""

from typing import Any


class StoreError(Exception):
    """A request that the store rejects.

    Args:
        message: what failed, where, and what to do.
        details: more fields for `details` of the response, which the SDK reads.
    """

    status = 400

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details


class InvalidRequestError(StoreError):
    """A missing or invalid value."""


class ConflictError(StoreError):
    """A name that is not unique, or a state that does not allow the change."""


class NotFoundError(StoreError):
    """A record that does not exist."""

    status = 404

    def __init__(self, kind: str, key: object) -> None:
        super().__init__(f"{kind} {key!r} does not exist")
