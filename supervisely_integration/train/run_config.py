"""Translate hyperparameters and files to the configuration of a run.

Nothing is built or downloaded. The checks include those of the engine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from rtdetrv2_pytorch.src.core import ConfigError, YAMLConfig
from rtdetrv2_pytorch.src.core.build import parameters_of
from rtdetrv2_pytorch.src.core.catalog import BACKBONES, COMPONENTS, random_backbones
from rtdetrv2_pytorch.src.core.error_places import OVERRIDES, line_of_error
from rtdetrv2_pytorch.src.core.yaml_files import get, merge, merge_layers, plain, read_layers
from rtdetrv2_pytorch.src.misc.text import counted

from .hyperparameters import (
    NAME_IN_ERRORS,
    check_values,
    complete_hyperparameters,
    default_hyperparameters,
    read_hyperparameters,
)

_LOADERS = ("train_dataloader", "val_dataloader")
# Hyperparameters translated below or used by the app; all others are keys of the engine.
_TRANSLATED = (
    *("batch_size", "val_batch_size", "optimizer", "ema", "lr_scheduler"),
    *("label_radar", "export_int8"),
)
_DATA_PATHS = ("img_folder", "ann_file", "root", "label_file")
_RUN_KEYS = (
    *("run_name", "output_dir", "summary_dir", "device"),
    *("tuning", "resume", "last_epoch"),
)


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """Input and output files of a run."""

    base_config: Path  # configuration of the model
    train_images: Path
    train_annotations: Path
    val_images: Path
    val_annotations: Path
    output_dir: Path
    log_dir: Path | None = None  # of TensorBoard; default: below output_dir
    tuning: Path | str | None = None  # checkpoint to fine-tune; None: random weights
    resume: Path | str | None = None  # checkpoint of the run to resume

    def __post_init__(self) -> None:
        if self.tuning and self.resume:
            raise ConfigError(
                f"resume = {self.resume} and tuning = {self.tuning}: give one of them"
            )


@dataclass(frozen=True)
class RunConfig:
    """Overrides for `YAMLConfig`, and notes for the user about changed values."""

    overrides: dict[str, Any]
    notes: list[str]


def check_hyperparameters(
    hyperparameters: str | Mapping[str, Any] | None, base_config: Path
) -> dict[str, Any]:
    """Check hyperparameters for a model, before anything is downloaded.

    Also steps the learning rate schedule through the whole run.

    Args:
        hyperparameters: YAML text of the editor or of an app state, or the parsed mapping.
        base_config: configuration of the model.

    Returns:
        The hyperparameters with defaults for missing keys.

    Raises:
        ConfigError: one sentence that names the first invalid key or value.
    """
    YAMLConfig(base_config)  # errors in the base configuration are reported as such
    nowhere = Path()
    files = RunFiles(
        base_config=base_config,
        train_images=nowhere,
        train_annotations=nowhere,
        val_images=nowhere,
        val_annotations=nowhere,
        output_dir=nowhere,
    )
    try:
        completed = complete_hyperparameters(read_hyperparameters(hyperparameters))
        run = run_config(completed, files, num_classes=1)
        _step_schedule(YAMLConfig(base_config, **run.overrides))
    except ConfigError as error:
        error.args = (" ".join(str(error.args[0]).split()),)
        if error.source in (None, OVERRIDES):
            error.source = NAME_IN_ERRORS
            if error.line is None and isinstance(hyperparameters, str):
                error.line = line_of_error(hyperparameters, error.args[0])
        raise
    return completed


def _step_schedule(cfg: YAMLConfig) -> None:
    """Step the schedule through the whole run with a tiny model."""
    cfg.model = nn.Linear(1, 1)
    cfg.yaml_cfg["optimizer"]["params"] = None  # they match names of the real network
    _ = cfg.lr_scheduler, cfg.lr_warmup_scheduler, cfg.ema
    try:
        for _ in range(cfg.epoches):
            cfg.optimizer.step()
            cfg.lr_scheduler.step()
    except (ValueError, ArithmeticError) as error:
        raise ConfigError(
            f"lr_scheduler: does not fit a run of {counted(cfg.epoches, 'epoch')} ({error}); "
            "change its lengths or epoches"
        ) from error


def run_config(
    hyperparameters: str | Mapping[str, Any] | None,
    files: RunFiles,
    *,
    num_classes: int,
    name: str | None = None,
    device: str | None = None,
    num_train_images: int | None = None,
) -> RunConfig:
    """Translate hyperparameters to overrides of a model's configuration.

    Args:
        hyperparameters: YAML text or mapping; missing keys take their defaults.
        files: of the run.
        num_classes: number of selected classes.
        name: of the run, in its report.
        device: to train on; default: a GPU if available.
        num_train_images: size of the training split, the upper limit of the batch size.

    Returns:
        `YAMLConfig(files.base_config, **result.overrides)` is the configuration of the run.

    Raises:
        ConfigError: if a hyperparameter is invalid.
    """
    values = complete_hyperparameters(read_hyperparameters(hyperparameters))
    check_values(values)
    base = merge_layers(read_layers(files.base_config))
    notes: list[str] = []
    batch_size = _batch_size(values, num_train_images, notes)
    val_batch_size = values["val_batch_size"] or 2 * batch_size
    overrides = {key: value for key, value in values.items() if key not in _TRANSLATED}
    translated = {
        "num_classes": num_classes,
        "run_name": name,
        "remap_mscoco_category": False,  # our annotation files have ids 1..K
        "optimizer": _optimizer(values["optimizer"], get(base, ("optimizer",)) or {}),
        "ema": _ema(values["ema"]),
        "lr_scheduler": _lr_scheduler(values, get(base, ("lr_scheduler",)) or {}, notes),
        "train_dataloader": _loader(files.train_images, files.train_annotations, batch_size),
        "val_dataloader": _loader(files.val_images, files.val_annotations, val_batch_size),
        "output_dir": files.output_dir,
        "summary_dir": files.log_dir,
        # "" means none: None would keep the checkpoint of the base configuration.
        "tuning": files.tuning or (None if files.resume else ""),
        "resume": files.resume or "",
        "device": device,
    }
    if "batch_size" in base:
        translated["batch_size"] = None  # would override those of the dataloaders
    backbones = {name: value for name, value in random_backbones().items() if base.get(name)}
    return RunConfig(plain(merge(merge(backbones, overrides), translated)), notes)


def _loader(images: Path, annotations: Path, batch_size: int) -> dict[str, Any]:
    dataset = {"type": "CocoDetection", "img_folder": images, "ann_file": annotations}
    return {"dataset": dataset, "total_batch_size": batch_size}


def _batch_size(values: Mapping[str, Any], num_images: int | None, notes: list[str]) -> int:
    chosen = int(values["batch_size"])
    if not num_images or chosen <= num_images:
        return chosen
    notes.append(
        f"batch_size: {chosen} -> {num_images}, the number of images in the training split"
    )
    return num_images


def _optimizer(section: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Add the parameter groups of the base configuration, with learning rates scaled to `lr`.

    Published configurations train the backbone with a 2 to 100 times lower learning rate. The
    ratio is kept. Weight decay of groups (0 for norms) is not changed.
    """
    own = dict(section)
    rules = base.get("params")
    if "params" in own or not rules:
        return own
    factory = COMPONENTS[base.get("type", "AdamW")]
    base_lr = float(base.get("lr", parameters_of(factory)["lr"].default))
    ratio = float(own["lr"]) / base_lr
    own["params"] = [
        {**rule, "lr": _rounded(float(rule["lr"]) * ratio)} if "lr" in rule else dict(rule)
        for rule in rules
    ]
    return own


def _ema(section: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the default decay by null: the engine adapts it to the run, and keeps other ones."""
    default = default_hyperparameters()["ema"]["decay"]
    return {**section, "decay": None} if section.get("decay") == default else dict(section)


def _rounded(value: float) -> float:
    return float(f"{value:.10g}")  # 2e-05, not 2.0000000000000002e-05


def _lr_scheduler(
    values: Mapping[str, Any], base: Mapping[str, Any], notes: list[str]
) -> dict[str, Any]:
    if values["lr_scheduler"] is None:
        return {"type": "MultiStepLR", "milestones": []}
    own = dict(values["lr_scheduler"])
    if own["type"] == "OneCycleLR":
        own.setdefault("max_lr", values["optimizer"]["lr"])
    if own["type"] == "MultiStepLR":
        own["milestones"] = _milestones(own["milestones"], values["epoches"], notes)
    return {**_reset_inherited(own, base), **own}


def _reset_inherited(own: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Return defaults for the keys of the base configuration, such as the length of its run."""
    parameters = parameters_of(COMPONENTS[own["type"]])
    return {
        key: parameters[key].default
        for key in base
        if key in parameters and parameters[key].default is not Parameter.empty
    }


def _milestones(milestones: Any, epochs: Any, notes: list[str]) -> Any:
    """Scale the default milestones to the number of epochs; keep other milestones."""
    defaults = default_hyperparameters()
    default, length = defaults["lr_scheduler"]["milestones"], defaults["epoches"]
    if milestones != default or type(epochs) is not int or epochs == length or epochs < 1:
        return milestones
    moved = sorted({max(1, round(m / length * epochs)) for m in milestones} & set(range(epochs)))
    notes.append(f"lr_scheduler.milestones: {default} -> {moved}, for {counted(epochs, 'epoch')}")
    return moved


def portable_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the paths and settings of the run and its machine from a configuration.

    `YAMLConfig` can open the result for serving, and as base configuration of another training.

    Args:
        values: `yaml_cfg` of the run.
    """
    portable = {k: v for k, v in plain(values).items() if k not in _RUN_KEYS}
    for name in _LOADERS:
        dataset = get(portable, (name, "dataset"))
        for key in _DATA_PATHS:
            if isinstance(dataset, dict) and key in dataset:
                dataset[key] = ""
    for name in BACKBONES:
        if isinstance(portable.get(name), dict):
            portable[name]["pretrained"] = False  # the configuration comes with a checkpoint
    return portable


def write_config(values: Mapping[str, Any], path: Path) -> Path:
    """Write a self-contained configuration, create its folder, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(plain(values), sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")
    return path
