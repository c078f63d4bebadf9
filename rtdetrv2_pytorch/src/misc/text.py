"""Text for people: names that come from data, numbers of things, what errors say."""

import math
from collections.abc import Mapping
from typing import Any


def printable(text: str) -> str:
    """Text that does nothing to a terminal, a log or a page: what cannot be seen is written out.

    Control and formatting characters, and those that are no proper text, become escapes; letters
    of any alphabet stay.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def counted(count: int, thing: str) -> str:
    """A number of things, the thing in the plural where there are not one of them."""
    plural = thing + ("es" if thing.endswith("s") else "s")
    return f"{count} {thing if count == 1 else plural}"


def whole_characters(text: str) -> str:
    """Text that UTF-8 can hold: halves of characters become U+FFFD, the replacement character.

    Names of files have them for bytes in another encoding, JSON where somebody cut a text.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def without_non_finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by None in nested values."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {k: without_non_finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_non_finite(v) for v in value]
    return value


def first_line(error: Exception) -> str:
    """What an error of a library says first, the rest being for its authors; else its kind."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
