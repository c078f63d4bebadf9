"""Checked access to the fields of a request."""

from collections.abc import Callable, Mapping
from typing import Any

from ..storage.sql.errors import InvalidRequestError
from ..store import Store


class Fields(dict[str, Any]):
    """The JSON body or the query of a request.

    Args:
        values: of the request.
        task_id: of the app that sends it; "" if it is none.

    The methods that return a required field raise `InvalidRequestError` if it is missing or has
    another type.
    """

    def __init__(self, values: Mapping[str, Any], task_id: str = "") -> None:
        super().__init__(values)
        self.task_id = task_id

    def required(self, name: str) -> Any:
        """Return a field that must be present."""
        if self.get(name) is None:
            raise InvalidRequestError(f"field {name!r} is missing")
        return self[name]

    def integer(self, name: str) -> int:
        """Return a required integer."""
        return _integer(name, self.required(name))

    def optional_integer(self, name: str) -> int | None:
        """Return an integer, or None if the field is missing."""
        return None if self.get(name) is None else _integer(name, self[name])

    def integers(self, name: str) -> list[int]:
        """Return a required list of integers."""
        return [_integer(name, each) for each in self.list_of(name)]

    def list_of(self, name: str) -> list[Any]:
        """Return a required list."""
        value = self.required(name)
        if not isinstance(value, list):
            raise InvalidRequestError(f"field {name!r} must be a list")
        return value

    def objects(self, name: str) -> list["Fields"]:
        """Return a required list of objects."""
        return [Fields(each) for each in self.list_of(name)]

    def text(self, name: str) -> str:
        """Return a required string that is not blank."""
        value = self.required(name)
        if not isinstance(value, str) or not value.strip():
            raise InvalidRequestError(f"{name} = {value!r}: must be a string that is not blank")
        return value

    def extra(self) -> list[str]:
        """Return the optional fields that the request asks for."""
        return self.get("extraFields") or []


Method = Callable[[Store, Fields], Any]
Methods = dict[str, Method]  # a method that returns None answers {"success": true}


def _integer(name: str, value: object) -> int:
    try:
        return int(value)  # type: ignore[call-overload,no-any-return]
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"{name} = {value!r}: must be an integer") from error
