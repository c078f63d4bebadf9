"""Hyperparameters for a training on a CPU that ends in about ten minutes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from rtdetrv2.training import auto_config
from rtdetrv2.training.data_extent import DataExtent
from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.misc.text import counted

from ...paths import HYPERPARAMETERS
from ..hyperparameters import default_hyperparameters
from .estimate import Estimate, format_minutes

_REPLACED = ("lr_scheduler",)  # sections that are not merged with their default
_ADDED = "# For a training on a CPU: fewer queries, and weaker augmentation at one image size."


def cpu_values(extent: DataExtent, *, is_from_scratch: bool) -> dict[str, Any]:
    """Return the hyperparameters that differ from the defaults, without the number of epochs.

    Args:
        extent: of the project.
        is_from_scratch: whether the model starts from random weights.
    """
    values = auto_config.cpu_overrides(extent, is_from_scratch=is_from_scratch)
    train = values.pop("train_dataloader")
    values.pop("val_dataloader")  # twice the batch size is the default
    values["batch_size"] = train.pop("total_batch_size")
    values["num_workers"] = train.pop("num_workers")
    return {**values, "train_dataloader": train}


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Add the defaults of other hyperparameters; that of `epoches` only if `values` has one."""
    defaults = default_hyperparameters()
    for name in (*_REPLACED, "epoches"):
        defaults.pop(name)
    return merge(defaults, values)


def as_text(values: Mapping[str, Any]) -> str:
    """Return `hyperparameters.yaml`, with its comments, and with other values.

    Args:
        values: replace those of the file; sections without a line in the file follow at the end.
    """
    text = HYPERPARAMETERS.read_text(encoding="utf-8")
    defaults, added = default_hyperparameters(), {}
    for key, value in values.items():
        if key not in defaults:
            added[key] = value
            continue
        if isinstance(value, Mapping) and key not in _REPLACED:
            value = merge(defaults[key], value)
        if value != defaults[key]:
            section = re.search(rf"^{key}:.*\n(?: .*\n)*", text, re.MULTILINE)
            assert section is not None, "the file has a line for every key"
            text = text[: section.start()] + _dump({key: value}) + text[section.end() :]
    return f"{text}\n{_ADDED}\n{_dump(added)}" if added else text


def reason(
    size_hw: Sequence[int], *, epochs: int, fitting: int, one: Estimate, is_measured: bool
) -> str:
    """Return why the presets are what they are, in one line.

    Args:
        size_hw: (height, width) in pixels.
        epochs: preset number.
        fitting: number of epochs that fit in the time budget.
        one: of one epoch.
        is_measured: whether the speed is measured on this machine.
    """
    height, width = size_hw
    time = f"about {format_minutes(one.time.seconds(0, epochs))}"
    if not is_measured:
        why = f"so that a training ends in {time} ({one.step_s:.2g} s per step, not measured yet)"
    elif epochs > fitting:
        shorter = (
            f"{counted(fitting, 'epoch')} in about {format_minutes(one.time.seconds(0, fitting))}"
        )
        why = f"and end in {time} on this CPU, {shorter}"
    else:
        why = f"so that a training ends in {time}"
    what = f"{height}x{width} pixels and {counted(epochs, 'epoch')} are preset"
    return f"No GPU: {what} {why}. Use a GPU for the full recipe."


def _dump(values: Mapping[str, Any]) -> str:
    """Format as YAML, with lists and innermost sections on one line."""
    return "".join(
        yaml.safe_dump(
            {key: value},
            sort_keys=False,
            default_flow_style=None if isinstance(value, dict | list) else False,
        )
        for key, value in values.items()
    )
