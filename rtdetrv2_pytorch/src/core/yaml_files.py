"""Read YAML files with includes, and merge them in layers.

A configuration is a stack of layers: included files from left to right, the file itself, then
overrides. Later layers win; dicts are merged, all other values replaced. The layers are kept to
find out which layer set a value, and for how many epochs that layer was written.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..misc.errors import CheckpointError, ConfigError
from ..misc.limits import MAX_YAML_CHARS, read_yaml
from ..misc.weights import load_checkpoint

INCLUDE = "__include__"
_RENAMED = {"epochs": "epoches"}  # both spellings are accepted; public files use the second

# Names of other trainers, accepted on the command line.
SYNONYMS = {
    "imgsz": "eval_spatial_size",
    "img_size": "eval_spatial_size",
    "batch": "batch_size",
    "lr": "optimizer.lr",
    "lr0": "optimizer.lr",
    "weight_decay": "optimizer.weight_decay",
    "workers": "num_workers",
    "amp": "use_amp",
}

CHECKPOINT_SUFFIXES = (".pth", ".pt")
_OF_THE_RUN = ("resume", "tuning", "output_dir", "summary_dir", "device")
_SUFFIXES = (".yml", ".yaml")  # of included files, to keep private files and devices out
_MAX_INCLUDED = 100  # files that include two others each grow exponentially
_MAX_DEPTH = 20

KeyPath = tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """Values of one file without its includes, or of the overrides."""

    source: str
    values: dict[str, Any]
    recipe_epochs: int | None  # number of epochs that the layer was written for


def read_layers(path: str | Path, _above: Sequence[Path] = ()) -> list[Layer]:
    """Read a file with its includes, in the order of merging.

    Args:
        path: the file; its includes are relative to its folder. Of a checkpoint (.pth), the
            configuration that it contains.

    Raises:
        ConfigError: if a file is missing, is not a YAML mapping, includes itself, or includes too
            many files.
        CheckpointError: if a checkpoint is missing, damaged, or has no configuration.
    """
    path = Path(path).expanduser().resolve()
    if path.suffix.lower() in CHECKPOINT_SUFFIXES:
        values = _read_checkpoint(path)
        return [Layer(str(path), values, values.get("epoches"))]
    if path in _above:
        chain = " -> ".join(p.name for p in (*_above, path))
        raise ConfigError(f"{path}: includes itself ({chain}); remove one of the includes")
    values = _read_mapping(path)
    includes = values.pop(INCLUDE, None) or []
    if not isinstance(includes, list):
        raise ConfigError(f"{path}: {INCLUDE} is {includes!r}; give a list of files")
    if len(_above) > _MAX_DEPTH:
        raise ConfigError(f"{path}: more than {_MAX_DEPTH} levels of includes; merge some files")
    included: list[Layer] = []
    for name in includes:
        included += read_layers(_included_path(path, name), (*_above, path))
        if len(included) > _MAX_INCLUDED:
            raise ConfigError(
                f"{path}: includes more than {_MAX_INCLUDED} files; merge some of them"
            )

    inherited = merge_layers(included).get("epoches")
    # A file that does not set epochs was written for those of its sibling files.
    included = [
        Layer(x.source, x.values, inherited if x.recipe_epochs is None else x.recipe_epochs)
        for x in included
    ]
    return [*included, Layer(str(path), values, values.get("epoches", inherited))]


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the configuration in a checkpoint, without the files of its run."""
    values = load_checkpoint(path).get("config")
    if not isinstance(values, Mapping):
        raise CheckpointError(
            f"{path}: the checkpoint does not contain its configuration; give --model, or the "
            "configuration with -c"
        )
    return {key: value for key, value in rename_keys(values).items() if key not in _OF_THE_RUN}


def _included_path(path: Path, name: Any) -> Path:
    if Path(str(name)).suffix not in _SUFFIXES:
        raise ConfigError(f"{path}: {INCLUDE} contains {name!r}; give .yml or .yaml files")
    try:
        return (path.parent / Path(str(name)).expanduser()).resolve()
    except (
        ValueError,
        RuntimeError,
        OSError,
    ) as error:  # null byte, unknown user, loop of symbolic links
        raise ConfigError(
            f"{path}: {INCLUDE} contains {name!r}, which is not a valid path ({error}); correct it"
        ) from error


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        content = read_yaml(_read_text(path))
    except OSError as error:
        raise ConfigError(
            f"{path}: could not read ({error.strerror or error}); give a YAML file"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        invalid = invalid_yaml(error)
        invalid.source = str(path)
        raise invalid from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path}: not a mapping; write 'name: value' lines")
    try:
        return rename_keys(content)
    except ConfigError as error:
        error.source = str(path)
        raise


def invalid_yaml(error: Exception) -> ConfigError:
    """Return the error for a text that is not YAML, with its line if it is known."""
    mark = getattr(error, "problem_mark", None)
    place = f" in column {mark.column + 1}" if mark else ""
    parts = (getattr(error, "context", None), getattr(error, "problem", None))
    problem = ", ".join(filter(None, parts)) or " ".join(str(error).split())
    invalid = ConfigError(f"invalid YAML{place} ({problem}); correct it")
    invalid.line = mark.line + 1 if mark else None
    return invalid


def _read_text(path: Path) -> str:
    """Read the text of a file, up to one character above the limit."""
    if path.exists() and not path.is_file():  # reading a pipe would block
        raise OSError("not a regular file")
    with path.open(encoding="utf-8") as file:
        return file.read(MAX_YAML_CHARS + 1)


def rename_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace alternative spellings of top-level keys.

    Raises:
        ConfigError: if both spellings occur with different values.
    """
    for one, other in _RENAMED.items():
        if one in values and values.get(other, values[one]) != values[one]:
            raise ConfigError(
                f"{one} = {values[one]!r} and {other} = {values[other]!r}: two spellings of one "
                "setting; give one of them"
            )
    return {_RENAMED.get(key, key): value for key, value in values.items()}


def plain(value: Any) -> Any:
    """Convert paths and tuples from Python to the strings and lists of YAML."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings into a new one: dicts recursively, all other values replaced."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def merge_layers(layers: Sequence[Layer]) -> dict[str, Any]:
    """Merge layers in order into a new mapping."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = merge(merged, layer.values)
    return copy.deepcopy(merged)


def get(values: Mapping[str, Any], path: KeyPath) -> Any:
    """Return the value at a path of keys, or None."""
    node: Any = values
    for key in path:
        if not isinstance(node, Mapping) or key not in node:
            return None
        node = node[key]
    return node


def put(values: dict[str, Any], path: KeyPath, value: Any) -> None:
    """Set the value at a path of keys; create missing dicts."""
    for key in path[:-1]:
        values = values.setdefault(key, {})
    values[path[-1]] = value


def last_setter(layers: Sequence[Layer], path: KeyPath) -> int:
    """Return the index of the last layer with a value other than null at the path, or -1."""
    setters = [i for i, layer in enumerate(layers) if get(layer.values, path) is not None]
    return setters[-1] if setters else -1


def parse_overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """Parse `a.b.c=value` assignments of a command line into nested values.

    Values are parsed as YAML: numbers, lists, true, null. Names of other trainers are accepted, and
    `imgsz=320` means square images.

    Raises:
        ConfigError: if one is not a valid assignment.
    """
    overrides: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"-u {text}: expected key=value, for example epoches=20")
        try:
            parsed = read_yaml(value)
        except yaml.YAMLError as error:
            problem = getattr(error, "problem", None) or error
            raise ConfigError(f"-u {text}: invalid YAML ({problem}); quote the value") from error
        name = SYNONYMS.get(key.strip(), key.strip())
        if key != name == "eval_spatial_size" and isinstance(parsed, int):
            parsed = [parsed, parsed]
        nested: dict[str, Any] = {}
        put(nested, tuple(name.split(".")), parsed)
        overrides = merge(overrides, rename_keys(nested))
    return overrides


# Keys whose values do not influence the result of a training.
_NEUTRAL_KEYS = {
    *("resume", "tuning", "output_dir", "summary_dir", "device", "num_workers", "print_freq"),
    *("img_folder", "ann_file", "root", "label_file", "checkpoint_freq", "keep_last", "last_epoch"),
}


def changed_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Describe each value of `new` that differs from `old`, except paths and the like.

    Args:
        old: the configuration of a resumed run; empty if unknown, which has no changes.
        new: the configuration of this run.
    """
    return [
        f"{'.'.join(path)}: {theirs} -> {ours} since the resumed checkpoint"
        for path, theirs, ours in (_differences(old, new) if old else ())
    ]


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any], path: KeyPath = ()
) -> Iterator[tuple[KeyPath, Any, Any]]:
    for key in sorted((old.keys() | new.keys()) - _NEUTRAL_KEYS):
        theirs, ours = old.get(key), new.get(key)
        if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
            yield from _differences(theirs, ours, (*path, key))
        elif theirs != ours:
            yield (*path, key), theirs, ours
