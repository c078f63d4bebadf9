"""Default model and hyperparameters for `train`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from rtdetrv2.training import auto_config
from rtdetrv2.training.model_table import SAMPLE_CONFIG
from rtdetrv2_pytorch.src.core.error_places import naming_overrides
from rtdetrv2_pytorch.src.core.yaml_files import merge, parse_overrides

from ...models import find_base_config, published_models
from ...train.hyperparameters import (
    NAME_IN_ERRORS,
    complete_hyperparameters,
    default_hyperparameters,
)
from ...train.plan import presets
from ...train.plan.probe import ProbeTask, measure
from ...train.run_config import check_hyperparameters
from .selection import Project

_DEFAULT_MODEL = "RT-DETRv2-S"
_RANDOM_WEIGHTS = " (random weights)"


def pick_model(wanted: str | None) -> tuple[str, str]:
    """Return the name of a model in the app's table, and a notice for the user.

    The default is RT-DETRv2-S with its published weights, or with random weights if these are not
    available.
    """
    if wanted is not None:
        return wanted, ""
    weights, message = auto_config.initial_weights()
    has_weights = bool(weights.get("tuning"))
    return _DEFAULT_MODEL if has_weights else f"{_DEFAULT_MODEL}{_RANDOM_WEIGHTS}", message


def _recipe_of(model: str) -> Path:
    """The configuration file of a model in the app's table."""
    (row,) = (row for row in published_models() if row["Model"] == model)
    return find_base_config(row["meta"]["model_files"]["config"])


def sample_choices() -> dict[str, Any]:
    """Return the augmentation for the generated digits."""
    sample = yaml.safe_load(SAMPLE_CONFIG.read_text(encoding="utf-8"))
    return {"augmentation": sample["augmentation"]}


def check_updates(updates: Sequence[str], model: str | None) -> None:
    """Check hyperparameters of the command line before any data are imported.

    Raises:
        ConfigError: if a key or a value is invalid.
    """
    if updates:
        given = parse_overrides(updates)
        with naming_overrides("-u", instead_of=NAME_IN_ERRORS):
            _chosen(default_hyperparameters(), given, model or _DEFAULT_MODEL)


def hyperparameters_for(
    project: Project,
    model: str,
    num_train: int,
    num_val: int,
    given: Mapping[str, Any],
    *,
    num_classes: int,
    preset: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], str]:
    """Return the app's defaults, or on a CPU a schedule of about ten minutes.

    Args:
        project: to train on.
        model: name in the table of models.
        num_train: images to train on.
        num_val: images to validate on.
        given: values from the user, which take precedence.
        num_classes: to learn.
        preset: values for this project, which take precedence over the defaults.

    Returns:
        Hyperparameters, and a notice for the user.

    Raises:
        ConfigError: if they are invalid; checked before steps are timed.
    """
    if torch.cuda.is_available():
        return _chosen(merge(default_hyperparameters(), preset or {}), given, model), ""
    is_from_scratch = model.endswith(_RANDOM_WEIGHTS)
    values = presets.cpu_values(project.extent, is_from_scratch=is_from_scratch)
    values = _chosen(merge(presets.completed(values), preset or {}), given, model)
    steps = max(1, num_train // int(values["batch_size"]))
    task = ProbeTask(
        base_config=str(_recipe_of(model)),
        hyperparameters=complete_hyperparameters(values),
        longest_side=project.extent.longest_side,
        device="cpu",
    )
    values, notice = auto_config.choose_epochs(values, steps, measure(task), num_val)
    if is_from_scratch and values["time_budget"] is None:
        num_boxes = num_train * project.extent.mean_boxes
        short = auto_config.scratch_augmentation(
            epochs=values["epoches"], num_boxes=num_boxes, num_classes=num_classes, given=given
        )
        values = merge(values, merge(short, given))
    return values, notice


def _chosen(values: dict[str, Any], given: Mapping[str, Any], model: str) -> dict[str, Any]:
    values = merge(values, given)
    check_hyperparameters(values, _recipe_of(model))
    return values
