"""Classes by name or label."""

import difflib
from collections.abc import Sequence

import numpy as np

from rtdetrv2_pytorch.src.misc.errors import ConfigError

_MOST_SHOWN = 20


def labels_of(classes: str | int | Sequence[str | int], class_names: Sequence[str]) -> list[int]:
    """Return the labels of classes given by name or label.

    Raises:
        ConfigError: naming a class that the model does not have, and the nearest names.
    """
    given = [classes] if isinstance(classes, str | int | np.integer) else list(classes)
    return [_label(each, class_names) for each in given]


def _label(value: object, class_names: Sequence[str]) -> int:
    if isinstance(value, str) and value in class_names:
        return class_names.index(value)
    is_number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if is_number and 0 <= int(value) < len(class_names):  # type: ignore[call-overload]
        return int(value)  # type: ignore[call-overload, no-any-return]
    near = difflib.get_close_matches(str(value), class_names, n=3)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    else:
        more = ", ..." if len(class_names) > _MOST_SHOWN else ""
        hint = f"its classes are {', '.join(class_names[:_MOST_SHOWN])}{more}"
    raise ConfigError(f"classes: the model does not have {value!r}; {hint}")
