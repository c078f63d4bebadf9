"""What people set for a training: read, completed with defaults, and checked by name.

All of this happens before anything is downloaded: a wrong value costs seconds, not an hour.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

import yaml

from rtdetrv2_pytorch.src.core.build import Sections, convert, suggest
from rtdetrv2_pytorch.src.core.catalog import COMPONENTS, SHARED, SLOTS
from rtdetrv2_pytorch.src.core.settings import SETTING_NAMES
from rtdetrv2_pytorch.src.core.yaml_files import rename_keys
from rtdetrv2_pytorch.src.misc.errors import ConfigError

from ..paths import HYPERPARAMETERS

# Parts of a run that hyperparameters choose, and among what.
CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": ("AdamW", "Adam", "SGD"),
    "lr_scheduler": ("MultiStepLR", "CosineAnnealingLR", "OneCycleLR", "FlatCosineLR"),
    "lr_warmup_scheduler": ("LinearWarmup",),
    "ema": ("ModelEMA",),
}
_MAY_BE_NONE = ("lr_scheduler", "lr_warmup_scheduler")

# Keys of the engine that follow from what was selected in the app.
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


@dataclass(frozen=True)
class _Range:
    low: float
    high: float = math.inf
    excludes_low: bool = False
    excludes_high: bool = False

    def __contains__(self, value: float) -> bool:
        is_above = value > self.low if self.excludes_low else value >= self.low
        is_below = value < self.high if self.excludes_high else value <= self.high
        return is_above and is_below and math.isfinite(value)

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.excludes_low else f"{self.low:g} or more"
        if math.isinf(self.high):
            return low
        high = f"below {self.high:g}" if self.excludes_high else f"{self.high:g} or less"
        return f"{low}, and {high}"


_POSITIVE = _Range(0, excludes_low=True)
_NOT_NEGATIVE = _Range(0)
_COUNT = _Range(1)
_SHARE = _Range(0, 1)
_DECAY = _Range(0, 1, excludes_high=True)

# What the engine's own types leave open; the engine checks its settings itself.
_RANGES = {
    ("batch_size",): _COUNT,
    ("val_batch_size",): _COUNT,
    ("seed",): _NOT_NEGATIVE,
    ("clip_max_norm",): _NOT_NEGATIVE,
    ("optimizer", "lr"): _POSITIVE,
    ("optimizer", "weight_decay"): _NOT_NEGATIVE,
    ("optimizer", "betas"): _DECAY,
    ("optimizer", "eps"): _NOT_NEGATIVE,
    ("optimizer", "momentum"): _DECAY,
    ("lr_scheduler", "milestones"): _COUNT,
    ("lr_scheduler", "gamma"): _POSITIVE,
    ("lr_scheduler", "T_max"): _COUNT,
    ("lr_scheduler", "eta_min"): _NOT_NEGATIVE,
    ("lr_scheduler", "max_lr"): _POSITIVE,
    ("lr_scheduler", "pct_start"): _SHARE,
    ("lr_scheduler", "div_factor"): _POSITIVE,
    ("lr_scheduler", "final_div_factor"): _POSITIVE,
    ("lr_scheduler", "flat_fraction"): _SHARE,
    ("lr_scheduler", "min_fraction"): _SHARE,
    ("lr_warmup_scheduler", "warmup_duration"): _NOT_NEGATIVE,
    ("ema", "decay"): _DECAY,
    ("ema", "warmups"): _NOT_NEGATIVE,
}
_WHOLE = {"batch_size": int, "val_batch_size": int | None}


def default_hyperparameters() -> dict[str, Any]:
    """What `hyperparameters.yaml` says."""
    values: dict[str, Any] = yaml.safe_load(HYPERPARAMETERS.read_text(encoding="utf-8"))
    return values


def read_hyperparameters(text: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Read what stands in the editor, or in an app state.

    Args:
        text: YAML, or already a mapping; nothing means the defaults.

    Raises:
        ConfigError: if it is no YAML mapping.
    """
    if isinstance(text, Mapping):
        return dict(text)
    try:
        values = yaml.safe_load(text or "")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigError(f"not valid YAML{place} ({problem}); correct it there") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{str(text)[:40]!r} is no list of 'name: value' lines; write it so")
    return values


def complete_hyperparameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Add the default of every key that is missing.

    A section whose type differs from the default's takes those default keys that its type knows.
    Sections of the engine's components (`RTDETRTransformerv2: {num_queries: 100}`) pass through.

    Raises:
        ConfigError: if a key or a type is unknown, or the app sets the key itself.
    """
    if "epochs" in given and "epoches" in given:
        raise ConfigError("epochs and epoches are the same; leave one of them out")
    given = rename_keys(given)
    defaults = default_hyperparameters()
    _refuse_foreign_keys(given, defaults)
    completed = {**defaults, **given}
    for slot, default in defaults.items():
        if slot in CHOICES:
            completed[slot] = _complete_section(slot, completed[slot], default)
    return completed


def _refuse_foreign_keys(given: Iterable[str], defaults: Iterable[str]) -> None:
    known = {*defaults, *SETTING_NAMES, *SLOTS, *SHARED, *COMPONENTS} - _SET_BY_THE_APP.keys()
    for key in given:
        if key in _SET_BY_THE_APP:
            raise ConfigError(f"{key!r} follows from {_SET_BY_THE_APP[key]}; remove it here")
        if key not in known:
            hint = suggest(key, known)
            # All that the engine knows would be a wall of names.
            hint = hint if "did you mean" in hint else suggest(key, defaults)
            raise ConfigError(f"unknown key {key!r}{hint}")


def _complete_section(slot: str, value: Any, default: Mapping[str, Any]) -> dict[str, Any] | None:
    if value is None and slot in _MAY_BE_NONE:
        return None
    if value is None and slot == "ema":  # whether there is one is use_ema's to say
        value = default
    if isinstance(value, str):
        value = {"type": value}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{slot} = {value!r}: give its keys, as in {dict(default)}")
    name = value.get("type", default["type"])
    if name not in CHOICES[slot]:
        raise ConfigError(f"{slot}.type = {name!r}: unknown{_suggest_choice(slot, str(name))}")
    parameters = signature(COMPONENTS[name]).parameters
    inherited = {key: v for key, v in default.items() if key in parameters}
    return {"type": name, **inherited, **value}


def _suggest_choice(slot: str, name: str) -> str:
    same = [choice for choice in CHOICES[slot] if choice.lower() == name.lower()]
    return f"; did you mean {same[0]!r}?" if same else suggest(name, CHOICES[slot])


def check_values(values: Mapping[str, Any]) -> None:
    """Check completed hyperparameters, as far as they can be checked one by one.

    Raises:
        ConfigError: naming the first value that is wrong, and what is right.
    """
    for key, hint in _WHOLE.items():
        convert(values[key], hint, key)
    betas = values["optimizer"].get("betas", [0, 0])
    if not isinstance(betas, list | tuple) or len(betas) != 2:
        raise ConfigError(f"optimizer.betas = {betas!r}: give two numbers, as in [0.9, 0.999]")
    for slot in CHOICES:
        if values[slot] is not None:
            _check_section(slot, values[slot])
    for path, allowed in _RANGES.items():
        _check_range(values, path, allowed)
    _check_size(values["eval_spatial_size"])


def _check_section(slot: str, section: Mapping[str, Any]) -> None:
    own = {key: value for key, value in section.items() if key != "type"}
    given = ["params", "epochs"]
    if section["type"] == "OneCycleLR":
        given.append("max_lr")  # the optimizer's rate, unless it is given
    if slot == "optimizer":
        own.pop("params", None)  # rules for groups of parameters
    try:
        Sections({}, {}).check_section(section["type"], own, given=given)
    except ConfigError as error:
        # AdamW.lr is optimizer.lr here.
        message = str(error).removeprefix(section["type"])
        raise ConfigError(f"{slot}{message}") from None


def _check_range(values: Mapping[str, Any], path: tuple[str, ...], allowed: _Range) -> None:
    value: Any = values
    for key in path:
        if value is None or key not in value:
            return
        value = value[key]
    if value is None:
        return
    at = ".".join(path)
    for item in value if isinstance(value, list | tuple) else [value]:
        if convert(item, float, at) not in allowed:
            raise ConfigError(f"{at} = {value!r}: has to be {allowed}")


def _check_size(size: Any) -> None:
    is_pair = isinstance(size, list | tuple) and len(size) == 2
    if not is_pair or not all(type(side) is int and side >= 32 and side % 32 == 0 for side in size):
        raise ConfigError(
            f"eval_spatial_size = {size!r}: give [height, width] in pixels, both multiples of 32"
        )
