"""Hyperparameters of the training app: reading, defaults and checks.

All checks run before anything is downloaded. The engine checks its own settings and sections; this
module checks the keys that only the app knows.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from rtdetrv2_pytorch.src.core.build import Sections, convert, parameters_of, suggest
from rtdetrv2_pytorch.src.core.catalog import COMPONENTS, SHARED, SLOTS
from rtdetrv2_pytorch.src.core.settings import SETTING_NAMES
from rtdetrv2_pytorch.src.core.yaml_files import invalid_yaml, rename_keys
from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.misc.limits import read_yaml
from rtdetrv2_pytorch.src.misc.ranges import PositiveInt

from ..paths import HYPERPARAMETERS

NAME_IN_ERRORS = "hyperparameters"  # source of values

# Components that hyperparameters may choose for a part of the run.
CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": ("AdamW", "Adam", "SGD"),
    "lr_scheduler": ("MultiStepLR", "CosineAnnealingLR", "OneCycleLR", "FlatCosineLR"),
    "lr_warmup_scheduler": ("LinearWarmup",),
    "ema": ("ModelEMA",),
}
_OPTIONAL = ("lr_scheduler", "lr_warmup_scheduler")

# Keys of the app that are not keys of the engine, or mean something else there.
_APP_KEYS = {
    "batch_size": PositiveInt,
    "val_batch_size": PositiveInt | None,
    "label_radar": bool,
    "export_int8": bool,
}

# Keys of the engine that follow from a selection in the app.
_SET_BY_THE_APP = {
    "num_classes": "the selected classes",
    "remap_mscoco_category": "the selected classes",
    "run_name": "the experiment's name",
    "output_dir": "the task",
    "summary_dir": "the task",
    "tuning": "the selected model",
    "resume": "the task",
    "last_epoch": "the task",
    "device": "the selected device",
    "task": "the selected model",
    "model": "the selected model",
}


def default_hyperparameters() -> dict[str, Any]:
    """Return the content of `hyperparameters.yaml`."""
    values: dict[str, Any] = yaml.safe_load(HYPERPARAMETERS.read_text(encoding="utf-8"))
    return values


def read_hyperparameters(text: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Parse hyperparameters from the editor or from an app state.

    Args:
        text: YAML, or a parsed mapping; empty means the defaults.

    Raises:
        ConfigError: if the text is not a YAML mapping.
    """
    if isinstance(text, Mapping):
        return dict(text)
    try:
        values = read_yaml(text or "")
    except yaml.YAMLError as error:
        invalid = invalid_yaml(error)
        invalid.source = NAME_IN_ERRORS
        raise invalid from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{str(text)[:40]!r} is not a mapping; write 'name: value' lines")
    return values


def complete_hyperparameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Add the default of every missing key.

    A section with another type than the default takes the default values that its type accepts.
    Sections of engine components (`RTDETRTransformerv2: {num_queries: 100}`) are kept.

    Raises:
        ConfigError: if a key or type is unknown, or the app sets the key itself.
    """
    if "epochs" in given and "epoches" in given:
        raise ConfigError("epochs and epoches are the same; leave one of them out")
    given = rename_keys(given)
    defaults = default_hyperparameters()
    _check_keys(given, defaults)
    completed = {**defaults, **given}
    for slot, default in defaults.items():
        if slot in CHOICES:
            completed[slot] = _complete_section(slot, completed[slot], default)
    return completed


def _check_keys(given: Iterable[str], defaults: Iterable[str]) -> None:
    known = {*defaults, *SETTING_NAMES, *SLOTS, *SHARED, *COMPONENTS} - _SET_BY_THE_APP.keys()
    for key in given:
        if key in _SET_BY_THE_APP:
            raise ConfigError(f"{key!r} is set by {_SET_BY_THE_APP[key]}; remove it here")
        if key not in known:
            hint = suggest(key, known)
            # Without a close match, list the app's keys only: the engine has too many.
            hint = hint if "did you mean" in hint else suggest(key, defaults)
            raise ConfigError(f"unknown key {key!r}{hint}")


def _complete_section(slot: str, value: Any, default: Mapping[str, Any]) -> dict[str, Any] | None:
    if value is None and slot in _OPTIONAL:
        return None
    if value is None and slot == "ema":  # use_ema decides whether EMA is used
        value = default
    if isinstance(value, str):
        value = {"type": value}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{slot} = {value!r}: give its keys, as in {dict(default)}")
    name = value.get("type", default["type"])
    if name not in CHOICES[slot]:
        raise ConfigError(f"{slot}.type = {name!r}: unknown{_suggest_choice(slot, str(name))}")
    parameters = parameters_of(COMPONENTS[name])
    inherited = {key: v for key, v in default.items() if key in parameters}
    return {"type": name, **inherited, **value}


def _suggest_choice(slot: str, name: str) -> str:
    same = [choice for choice in CHOICES[slot] if choice.lower() == name.lower()]
    return f"; did you mean {same[0]!r}?" if same else suggest(name, CHOICES[slot])


def check_values(values: Mapping[str, Any]) -> None:
    """Check the values of completed hyperparameters that are translated for the engine.

    Raises:
        ConfigError: naming the first invalid value.
    """
    for key, hint in _APP_KEYS.items():
        convert(values[key], hint, key)
    for slot in CHOICES:
        section = values[slot]
        if section is not None:
            given = ("params", "epochs", "max_lr")  # the default of max_lr is the optimizer's lr
            section = {k: v for k, v in section.items() if (slot, k) != ("optimizer", "params")}
            Sections({}, {}).check(section, slot, given=given)
