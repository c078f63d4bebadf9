"""Default model and hyperparameters for `train`."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from rtdetrv2.training import auto_config
from rtdetrv2.training.model_table import DEFAULT_CONFIG, SAMPLE_CONFIG
from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.catalog import COMPONENTS
from rtdetrv2_pytorch.src.core.yaml_files import get, merge, parse_overrides
from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.data.splits import find_splits

from ...models import find_base_config, published_models
from ...train.hyperparameters import default_hyperparameters
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
    """Return the augmentation for the generated digits: no flips, no changes of scale."""
    sample = yaml.safe_load(SAMPLE_CONFIG.read_text(encoding="utf-8"))
    transforms = sample["train_dataloader"]["dataset"]["transforms"]
    return {"train_dataloader": {"dataset": {"transforms": transforms}}}


def check_updates(updates: Sequence[str], model: str | None) -> None:
    """Check hyperparameters of the command line before any data are imported.

    Raises:
        ConfigError: if a key or a value is invalid.
    """
    if updates:
        given = parse_overrides(updates)
        _chosen(default_hyperparameters(), given, model or _DEFAULT_MODEL)


def hyperparameters_for(
    project: Project, model: str, num_train: int, num_val: int, given: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """Return the app's defaults, or on a CPU a schedule of about ten minutes.

    Args:
        project: to train on.
        model: name in the table of models.
        num_train: images to train on.
        num_val: images to validate on.
        given: values from the user, which take precedence.

    Returns:
        Hyperparameters, and a notice for the user.

    Raises:
        ConfigError: if they are invalid; checked before steps are timed.
    """
    values = default_hyperparameters()
    if torch.cuda.is_available():
        return _chosen(values, given, model), ""
    overrides = auto_config.cpu_overrides(
        longest_side=project.longest_side,
        max_boxes=project.most_objects,
        is_from_scratch=model.endswith(_RANDOM_WEIGHTS),
    )
    train = overrides.pop("train_dataloader")
    overrides.pop("val_dataloader")
    overrides["batch_size"] = train.pop("total_batch_size")
    overrides["num_workers"] = train.pop("num_workers")
    overrides["train_dataloader"] = train
    for name in ("lr_scheduler", "epoches"):  # the choices replace these defaults
        values.pop(name)
    values = _chosen(merge(values, overrides), given, model)
    steps = max(1, num_train // int(values["batch_size"]))
    return auto_config.choose_epochs(values, steps, _measure_step(values), num_val)


def _chosen(values: dict[str, Any], given: Mapping[str, Any], model: str) -> dict[str, Any]:
    values = merge(values, given)
    _resize_to(values["eval_spatial_size"], values)
    check_hyperparameters(values, _recipe_of(model))
    return values


def _resize_to(size: Any, values: dict[str, Any]) -> None:
    """Set the size of the Resize operations; an invalid size is reported later."""
    for op in get(values, ("train_dataloader", "dataset", "transforms", "ops")) or ():
        if op["type"] == "Resize" and isinstance(size, list):
            op["size"] = list(size)


def _measure_step(values: Mapping[str, Any]) -> float:
    """Seconds per training step of RT-DETRv2-S at this image size, on generated images."""
    with tempfile.TemporaryDirectory() as name:
        images = auto_config.TIMED_STEPS * int(values["batch_size"])
        data = make_digits_dataset(Path(name), num_train=images, num_val=1)
        splits = find_splits(data, Path(name))
        overrides = merge(
            auto_config.data_overrides(splits.train, splits.val),
            {
                "eval_spatial_size": values["eval_spatial_size"],
                "use_amp": values["use_amp"],
                "train_dataloader": {"total_batch_size": values["batch_size"]},
                "num_workers": 0,
                "epoches": 1,
                "device": "cpu",
                "output_dir": name,
            },
        )
        parts = {key: value for key, value in values.items() if key in COMPONENTS}
        overrides = merge(merge(overrides, parts), {"PResNet": {"pretrained": False}})
        return auto_config.time_step(YAMLConfig(DEFAULT_CONFIG, **overrides))
