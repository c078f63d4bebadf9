"""YAML files that include one another, and who set a value last.

A configuration is a stack of layers: included files, left to right, then the file itself, then
overrides. Later layers win; dicts merge, everything else replaces. The layers are kept, because
two questions need them: whether a value was chosen for this run or inherited from a recipe, and
how long the run was for which an epoch in it was chosen.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..misc.errors import ConfigError
from ..misc.limits import MAX_YAML_CHARS, read_yaml

INCLUDE = "__include__"
_RENAMED = {"epochs": "epoches"}  # both spellings are accepted; files are full of the second

_SUFFIXES = (".yml", ".yaml")  # of included files: no keys of others, no devices
_MAX_INCLUDED = 100  # files that include two others each soon are a million
_MAX_DEPTH = 20

KeyPath = tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """What one file, or the overrides, set by themselves."""

    source: str
    values: dict[str, Any]
    recipe_epochs: int | None  # length of the run that the layer was written for


def read_layers(path: str | Path, _above: Sequence[Path] = ()) -> list[Layer]:
    """Read a file with everything it includes, in the order of merging.

    Args:
        path: the file; its includes are relative to it.

    Raises:
        ConfigError: if a file is missing, is not a YAML mapping, includes itself, or includes too
            much.
    """
    path = Path(path).expanduser().resolve()
    if path in _above:
        chain = " -> ".join(p.name for p in (*_above, path))
        raise ConfigError(f"{path}: includes itself ({chain}); remove one of the includes")
    values = _read_mapping(path)
    includes = values.pop(INCLUDE, None) or []
    if not isinstance(includes, list):
        raise ConfigError(f"{path}: {INCLUDE} is {includes!r}; give a list of files")
    if len(_above) > _MAX_DEPTH:
        raise ConfigError(f"{path}: is included over {_MAX_DEPTH} files; merge some")
    included: list[Layer] = []
    for name in includes:
        included += read_layers(_included_path(path, name), (*_above, path))
        if len(included) > _MAX_INCLUDED:
            raise ConfigError(f"{path}: includes more than {_MAX_INCLUDED} files; merge some")

    inherited = merge_layers(included).get("epoches")
    # A file without epochs of its own was written for the run of the files beside it.
    included = [
        Layer(x.source, x.values, inherited if x.recipe_epochs is None else x.recipe_epochs)
        for x in included
    ]
    return [*included, Layer(str(path), values, values.get("epoches", inherited))]


def _included_path(path: Path, name: Any) -> Path:
    if Path(str(name)).suffix not in _SUFFIXES:
        raise ConfigError(f"{path}: {INCLUDE} names {name!r}; give .yml or .yaml files")
    try:
        return (path.parent / Path(str(name)).expanduser()).resolve()
    except (ValueError, RuntimeError, OSError) as error:  # a byte 0, no such user, a loop of links
        raise ConfigError(
            f"{path}: {INCLUDE} names {name!r}, which is no path ({error})"
        ) from error


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        content = read_yaml(_read_text(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid YAML ({error})") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path}: is not a mapping of names to values")
    return rename_keys(content)


def _read_text(path: Path) -> str:
    """The text of a file; of a very long one as much as shows that it is too long."""
    if path.exists() and not path.is_file():  # a pipe would be waited for, for ever
        raise OSError("it is no file")
    with path.open(encoding="utf-8") as file:
        return file.read(MAX_YAML_CHARS + 1)


def rename_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Bring top-level keys with two spellings to the one that is used from here on.

    Raises:
        ConfigError: if both spellings occur, with different values.
    """
    for one, other in _RENAMED.items():
        if one in values and values.get(other, values[one]) != values[one]:
            raise ConfigError(
                f"{one} = {values[one]!r} and {other} = {values[other]!r}: two spellings of one "
                "setting; give one of them"
            )
    return {_RENAMED.get(key, key): value for key, value in values.items()}


def plain(value: Any) -> Any:
    """Turn paths and tuples of Python callers into what YAML has: strings and lists."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings into a new one; dicts recursively, everything else replaced."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def merge_layers(layers: Sequence[Layer]) -> dict[str, Any]:
    """Merge layers in order, on copies."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = merge(merged, layer.values)
    return copy.deepcopy(merged)


def get(values: Mapping[str, Any], path: KeyPath) -> Any:
    """The value at a path of keys, or None."""
    node: Any = values
    for key in path:
        if not isinstance(node, Mapping) or key not in node:
            return None
        node = node[key]
    return node


def put(values: dict[str, Any], path: KeyPath, value: Any) -> None:
    """Set the value at a path of keys, making dicts on the way."""
    for key in path[:-1]:
        values = values.setdefault(key, {})
    values[path[-1]] = value


def last_setter(layers: Sequence[Layer], path: KeyPath) -> int:
    """Index of the last layer that set a value other than null at the path; -1 if none did."""
    setters = [i for i, layer in enumerate(layers) if get(layer.values, path) is not None]
    return setters[-1] if setters else -1


def parse_overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """Turn `a.b.c=value` assignments of a command line into nested values.

    Values are YAML: numbers, lists, true, null.

    Raises:
        ConfigError: if one is not an assignment.
    """
    overrides: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"-u {text}: is not of the form key=value, for example epoches=20")
        try:
            parsed = read_yaml(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"-u {text}: the value is not valid YAML ({error})") from error
        nested: dict[str, Any] = {}
        put(nested, tuple(key.strip().split(".")), parsed)
        overrides = merge(overrides, rename_keys(nested))
    return overrides
