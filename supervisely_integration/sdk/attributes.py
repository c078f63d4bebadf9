"""Temporary replacement of SDK attributes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute of a module or class for the duration of a `with` block.

    Args:
        owner: module or class that defines the attribute itself.
        name: of the attribute.
        value: replacement.
    """
    original = vars(owner)[name]  # not getattr: keeps a staticmethod as it is
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)
