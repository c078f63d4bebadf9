"""Find the file and the line of the setting that an error message names."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from ..misc.errors import ConfigError
from .yaml_files import Layer, rename_keys

OVERRIDES = "overrides"  # source of values that are not in a file


@contextmanager
def naming_overrides(source: str | None, *, instead_of: str = OVERRIDES) -> Iterator[None]:
    """Replace the source of errors of the block about overrides, for example by "-u"."""
    try:
        yield
    except ConfigError as error:
        error.source = source if error.source == instead_of else error.source
        raise


@contextmanager
def located(layers: Sequence[Layer]) -> Iterator[None]:
    """Add the source and the line of the setting to a `ConfigError` of the block.

    Args:
        layers: of the configuration; of those that set the value, the last one is named.
    """
    try:
        yield
    except ConfigError as error:
        if error.source is None:
            _locate(error, layers)
        raise


def _locate(error: ConfigError, layers: Sequence[Layer]) -> None:
    message, found = str(error), []
    for index, layer in enumerate(layers):
        for name in _names(layer.values):
            rank = _rank(name, message)
            if rank is not None:
                found.append((rank, index, name))
    if not found:
        return
    _, index, name = max(found)
    error.source = layers[index].source
    path = Path(error.source)
    if path.suffix in (".yml", ".yaml") and path.is_file():
        error.line = _lines(path.read_text(encoding="utf-8")).get(name)


def line_of_error(text: str, message: str) -> int | None:
    """Return the line, from 1, of the setting that an error message names.

    Args:
        text: valid YAML.
        message: names a setting as "section.key = value" or "section: unknown key 'key'".
    """
    ranks = [(_rank(name, message), line) for name, line in _lines(text).items()]
    found = [(rank, line) for rank, line in ranks if rank is not None]
    return max(found, key=lambda each: each[0])[1] if found else None


def names_setting(values: Mapping[str, Any], message: str) -> bool:
    """Return whether an error message names one of these settings."""
    return any(_rank(name, message) is not None for name in _names(values))


def _rank(name: str, message: str) -> tuple[int, int] | None:
    """Rank a setting that a message names: the earliest in the message, then the most specific.

    Returns:
        A larger tuple is a better match; None: the message does not name the setting.
    """
    section, _, key = name.rpartition(".")
    place = rf"(?<![\w.'\]]){re.escape(section)}(?![\w.'\[])" if section else ""
    patterns = [
        rf"(?<![\w.'\]]){re.escape(name)}(?![\w.'\[])",
        rf"{place}[^']*'{re.escape(key)}'",  # section: unknown key 'key'
    ]
    if not section:  # a shared value, named by the component that receives it
        patterns.append(rf"\b\w+\.{re.escape(key)}(?![\w.'\[])")
    starts = [match.start() for match in (re.search(p, message) for p in patterns) if match]
    return (-min(starts), len(name)) if starts else None


def _names(value: Any, name: str = "") -> Iterator[str]:
    """Yield the names of all settings, such as "a.b" and "a.c[0].d"."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            inner = f"{name}.{key}" if name else str(key)
            yield inner
            yield from _names(item, inner)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield f"{name}[{index}]"
            yield from _names(item, f"{name}[{index}]")


def _lines(text: str) -> dict[str, int]:
    """Return the lines, from 1, of all settings in valid YAML."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return dict(_lines_below(root, "")) if isinstance(root, yaml.MappingNode) else {}


def _lines_below(node: yaml.Node, name: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, item in node.value:
            inner = f"{name}.{key.value}" if name else next(iter(rename_keys({key.value: None})))
            yield inner, key.start_mark.line + 1
            yield from _lines_below(item, inner)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield f"{name}[{index}]", item.start_mark.line + 1
            yield from _lines_below(item, f"{name}[{index}]")
