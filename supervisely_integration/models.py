"""The models that the apps offer and their published configurations."""

import json
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.misc.errors import ConfigError

from .paths import CONFIGS, MODELS


def find_base_config(name: str | Path) -> Path:
    """Return the path of a model's configuration.

    Args:
        name: a file name among the published configurations, or the path of another one.

    Raises:
        ConfigError: if the file does not exist.
    """
    path = Path(name)
    candidates = [path] if path.is_absolute() else [CONFIGS / path, path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    raise ConfigError(
        f"{name}: no such model configuration, neither here nor in {CONFIGS.name}; "
        "choose another model"
    )


def published_models() -> list[dict[str, Any]]:
    """Return the rows of the model table, in the format that the SDK defines."""
    rows: list[dict[str, Any]] = json.loads(MODELS.read_text(encoding="utf-8"))
    return rows
