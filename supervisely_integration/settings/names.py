"""Names that the app makes from the names of projects, models and tasks."""

import itertools
import re
from collections.abc import Collection

_SEPARATORS = re.compile(r"[/\\]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_MAX_BYTES = 120  # of one part, in UTF-8; names of files and folders have at most 255


def valid_part(name: str) -> str:
    """Return a name without slashes and control characters, at most 120 bytes long in UTF-8.

    The SDK rejects experiment names with a slash, and a slash in the name of a folder in Team Files
    is a subfolder.
    """
    name = _CONTROL.sub(" ", _SEPARATORS.sub("-", name))
    name = name.encode()[:_MAX_BYTES].decode(errors="ignore")
    return name.strip() or "-"


def experiment_name(task_id: int, project: str, model: str) -> str:
    """Return the default name of an experiment; task -1 is a training in development."""
    task = "debug" if task_id == -1 else str(task_id)
    return " ".join((task, valid_part(project), valid_part(model)))


def unused_name(name: str, used: Collection[str]) -> str:
    """Return the name, or the first of "name #2", "name #3", ... that is not used."""
    stem, _, number = name.rpartition(" #")
    if not (stem and number.isdecimal()):
        stem, number = name, "1"
    numbers = itertools.count(int(number) + 1)
    return (
        name
        if name not in used
        else next(each for each in (f"{stem} #{n}" for n in numbers) if each not in used)
    )
