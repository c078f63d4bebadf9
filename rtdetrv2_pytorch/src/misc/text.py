"""Format text for users: names from data, counts and errors."""

import json
import math
from collections.abc import Mapping
from typing import Any


def printable(text: str) -> str:
    """Escape control characters, formatting characters and lone surrogates.

    The result is safe to print to a terminal, a log or a page. Letters of any alphabet are kept.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def counted(count: int, thing: str) -> str:
    """Format a count, as in "1 epoch", "2 epochs", "3 boxes" or "4 entries"."""
    plural = f"{thing}es" if thing.endswith(("s", "x", "tch")) else f"{thing}s"
    if thing.endswith("y") and thing[-2] not in "aeiou":
        plural = f"{thing[:-1]}ies"
    return f"{count} {thing if count == 1 else plural}"


def whole_characters(text: str) -> str:
    """Replace lone surrogates by U+FFFD, so that the text can be encoded as UTF-8.

    They occur in file names in other encodings and in truncated JSON strings.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON from an untrusted source.

    Raises:
        ValueError: if it is invalid or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


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
    """Return the first line of an error message, or the error's type if it is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
