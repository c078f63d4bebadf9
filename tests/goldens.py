"""Reference facts in tests/golden: published models, configuration files and state dicts."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden"


def load_golden(name: str) -> Any:
    """Load a JSON file of tests/golden."""
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def load_models() -> dict[str, dict[str, Any]]:
    """Return values of every published configuration.

    The file has values of all models, then of families, then of single models.
    """
    content = load_golden("models.json")
    models = {}
    for name, own in content["models"].items():
        family = content["families"][own["family"]]
        models[name] = _merged(_merged(content["common"], family), own)
    return models


def load_config_files() -> dict[str, dict[str, Any]]:
    """Includes of every public configuration file, and the keys it sets ("a.b.c")."""
    return {
        name: {"includes": facts["includes"], "sets": dict(_flat(facts["sets"]))}
        for name, facts in load_golden("config_files.json")["files"].items()
    }


def state_dict_summary(lines: Iterable[str]) -> dict[str, str]:
    """Summarize the entries of a state dict, in total and by module.

    Args:
        lines: "key shape dtype" of every entry, in order.

    Returns:
        Module -> number of entries and hash of their lines.
    """
    groups: dict[str, list[str]] = {"all": list(lines)}
    for line in groups["all"]:
        modules = line.split()[0].split(".")[:-1]
        depth = 3 if modules[0] == "backbone" else 2
        groups.setdefault(".".join(modules[:depth]), []).append(line)
    return {
        module: f"{len(group)} {hashlib.sha256(chr(10).join(group).encode()).hexdigest()[:16]}"
        for module, group in groups.items()
    }


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        is_nested = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if is_nested else value
    return result


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
