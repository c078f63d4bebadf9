"""From hyperparameters and files to the configuration of a run.

Nothing is built here and nothing is downloaded; the engine's own checks are part of it.
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
from rtdetrv2_pytorch.src.core.catalog import COMPONENTS
from rtdetrv2_pytorch.src.core.yaml_files import get, merge, merge_layers, plain, read_layers

from .hyperparameters import (
    check_values,
    complete_hyperparameters,
    default_hyperparameters,
    read_hyperparameters,
)

_BACKBONES = ("PResNet", "HGNetv2")
_LOADERS = ("train_dataloader", "val_dataloader")
# Translated below; all other hyperparameters are keys of the engine.
_TRANSLATED = ("batch_size", "val_batch_size", "optimizer", "lr_scheduler")
_DATA_PATHS = ("img_folder", "ann_file", "root", "label_file")
_OF_THE_RUN = (
    *("run_name", "output_dir", "summary_dir", "device"),
    *("tuning", "resume", "last_epoch"),
)


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What a run reads and where it writes."""

    base_config: Path  # recipe of the model
    train_images: Path
    train_annotations: Path
    val_images: Path
    val_annotations: Path
    output_dir: Path
    log_dir: Path | None = None  # of TensorBoard; None: below output_dir
    tuning: Path | str | None = None  # weights to start from; None: random ones
    resume: Path | str | None = None  # checkpoint to go on from, exactly

    def __post_init__(self) -> None:
        if self.tuning and self.resume:
            raise ConfigError(
                f"{self.resume} is to be resumed, so {self.tuning} cannot be its start; give one"
            )


@dataclass(frozen=True)
class RunConfig:
    """Overrides for `YAMLConfig`, and what people should know about them."""

    overrides: dict[str, Any]
    notes: list[str]


def check_hyperparameters(
    hyperparameters: str | Mapping[str, Any] | None, base_config: Path
) -> dict[str, Any]:
    """Check hyperparameters for a model, before anything is downloaded.

    Beside every key and value, the schedule is rehearsed: whether it lasts as long as the run.

    Args:
        hyperparameters: YAML text of the editor or of an app state, or what it says.
        base_config: recipe of the model.

    Returns:
        The hyperparameters with the default of every key that was missing.

    Raises:
        ConfigError: one sentence that names the first thing that is wrong, and the remedy.
    """
    YAMLConfig(base_config)  # what is wrong with the recipe is not the hyperparameters' fault
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
        _rehearse(YAMLConfig(base_config, **run.overrides))
    except ConfigError as error:
        sentence = " ".join(str(error).split())
        raise ConfigError(f"hyperparameters: {sentence}") from error
    return completed


def _rehearse(cfg: YAMLConfig) -> None:
    """Step the schedule through the whole run, on an optimizer of two numbers."""
    cfg.model = nn.Linear(1, 1)
    cfg.yaml_cfg["optimizer"]["params"] = None  # groups of the real network
    _ = cfg.lr_scheduler, cfg.lr_warmup_scheduler, cfg.ema
    try:
        for _ in range(cfg.epoches):
            cfg.optimizer.step()
            cfg.lr_scheduler.step()
    except (ValueError, ArithmeticError) as error:
        raise ConfigError(
            f"lr_scheduler: does not fit a run of {cfg.epoches} epochs ({error}); change its "
            "lengths or epoches"
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
    """Translate hyperparameters into overrides of a model's recipe.

    Args:
        hyperparameters: YAML, or what it says; missing keys have their defaults.
        files: of the run.
        num_classes: how many classes were selected.
        name: of the run, for people.
        device: where to train; None: a GPU if there is one.
        num_train_images: of the training split, if known; a batch is not larger than that.

    Returns:
        `YAMLConfig(files.base_config, **result.overrides)` is the configuration of the run.

    Raises:
        ConfigError: if a hyperparameter is wrong.
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
        "remap_mscoco_category": False,  # ids of our annotation files are 1..K
        "optimizer": _optimizer(values["optimizer"], get(base, ("optimizer",)) or {}),
        "lr_scheduler": _lr_scheduler(values, get(base, ("lr_scheduler",)) or {}, notes),
        "train_dataloader": _loader(files.train_images, files.train_annotations, batch_size),
        "val_dataloader": _loader(files.val_images, files.val_annotations, val_batch_size),
        "output_dir": files.output_dir,
        "summary_dir": files.log_dir,
        # "" is none: a recipe may have a start of its own, which None would leave in place.
        "tuning": files.tuning or (None if files.resume else ""),
        "resume": files.resume or "",
        "device": device,
    }
    if "batch_size" in base:
        translated["batch_size"] = None  # would win over the loaders' own
    backbones = {name: {"pretrained": False} for name in _BACKBONES if base.get(name)}
    return RunConfig(plain(merge(merge(backbones, overrides), translated)), notes)


def _loader(images: Path, annotations: Path, batch_size: int) -> dict[str, Any]:
    dataset = {"type": "CocoDetection", "img_folder": images, "ann_file": annotations}
    return {"dataset": dataset, "total_batch_size": batch_size}


def _batch_size(values: Mapping[str, Any], num_images: int | None, notes: list[str]) -> int:
    chosen = int(values["batch_size"])
    if not num_images or chosen <= num_images:
        return chosen
    notes.append(
        f"batch_size: {chosen} -> {num_images}, there are no more images in the training split"
    )
    return num_images


def _optimizer(section: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The section with the recipe's groups of parameters, at their ratio to the chosen rate.

    Published recipes train the backbone 2 to 100 times slower than the rest. A chosen rate is
    that of the rest; the ratio belongs to the model. Decay of groups (0 for norms) stays.
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
    return {**_recipe_leftovers(own, base), **own}


def _recipe_leftovers(own: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults for what the recipe set and nobody chose: a length of the recipe's own run, say."""
    parameters = parameters_of(COMPONENTS[own["type"]])
    return {
        key: parameters[key].default
        for key in base
        if key in parameters and parameters[key].default is not Parameter.empty
    }


def _milestones(milestones: Any, epochs: Any, notes: list[str]) -> Any:
    """Move the default milestones with the length of the run; chosen ones stay."""
    defaults = default_hyperparameters()
    default, length = defaults["lr_scheduler"]["milestones"], defaults["epoches"]
    if milestones != default or type(epochs) is not int or epochs == length or epochs < 1:
        return milestones
    moved = sorted({max(1, round(m / length * epochs)) for m in milestones} & set(range(epochs)))
    notes.append(f"lr_scheduler.milestones: {default} -> {moved}, for {epochs} epochs")
    return moved


def portable_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without anything of the run and the machine that it comes from.

    It can be opened by `YAMLConfig` for serving, and as the recipe of another training, which
    sets paths of its own.

    Args:
        values: `yaml_cfg` of the run.
    """
    portable = {k: v for k, v in plain(values).items() if k not in _OF_THE_RUN}
    for name in _LOADERS:
        dataset = get(portable, (name, "dataset"))
        for key in _DATA_PATHS:
            if isinstance(dataset, dict) and key in dataset:
                dataset[key] = ""
    for name in _BACKBONES:
        if isinstance(portable.get(name), dict):
            portable[name]["pretrained"] = False  # a checkpoint comes with the configuration
    return portable


def write_config(values: Mapping[str, Any], path: Path) -> Path:
    """Write a self-contained configuration; folders are made.

    Returns:
        The path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(plain(values), sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")
    return path
