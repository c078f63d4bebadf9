"""The plan of a run: its configuration, initial weights and output folder."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.catalog import random_backbones
from rtdetrv2_pytorch.src.core.error_places import located
from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.data import digits
from rtdetrv2_pytorch.src.data.splits import CONVERTED, Splits, find_splits
from rtdetrv2_pytorch.src.interchange.folders import is_folder, open_checkpoint
from rtdetrv2_pytorch.src.misc.errors import ConfigError, DatasetError
from rtdetrv2_pytorch.src.misc.weights import is_url, locate
from rtdetrv2_pytorch.src.solver.checkpointing import LAST
from rtdetrv2_pytorch.src.solver.run import MODEL_CONFIG
from rtdetrv2_pytorch.src.trackers import check_installed

from . import auto_config
from .model_table import (
    NONE,
    RECIPES,
    SAMPLE_CONFIG,
    WEIGHTS,
    find_model,
    published_weights,
)
from .options import TrainOptions
from .output_folder import choose_output
from .progress import TrainingProgress


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A checked run, before anything is read, downloaded or written.

    Attributes:
        config: the configuration file.
        is_automatic: whether to choose initial weights and, on a CPU, a schedule.
        overrides: of the configuration.
        output_dir: of the run.
    """

    config: Path
    is_automatic: bool
    overrides: dict[str, Any]
    output_dir: Path


def plan_run(options: TrainOptions, progress: TrainingProgress) -> Plan:
    """Check the options and choose configuration and output folder; nothing is written.

    A configuration file is used unchanged. A checkpoint without one has its configuration in its
    folder, or contains it.

    Raises:
        ConfigError: if an option or setting is invalid.
        CheckpointError: if a checkpoint does not exist.
    """
    folder, checkpoint = options.folder, options.resume or options.tuning
    if options.tuning in WEIGHTS:
        config, recipe, network = options.config, None, _named_weights(options)
        overrides = merge({**options.overrides(), "tuning": None}, network)
    else:
        config, recipe, network = _of_checkpoint(options, checkpoint)
        overrides = merge(network, options.overrides())
    if config is None and folder is None:
        raise ConfigError(
            f"{checkpoint}: no {MODEL_CONFIG} in its folder; give the configuration with -c"
        )
    if config is not None:
        base = config
    elif options.sample and options.model is None:
        base = SAMPLE_CONFIG
    else:
        base = recipe or find_model(options.model or "S")[0]
        assert folder is not None
        overrides.setdefault("output_dir", str(Path("output", folder.resolve().name)))
    wanted = _checked(base, overrides)
    if folder is not None and not options.sample and not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; give the folder of a data set")
    output, resume = _choose_output(options, wanted, progress)
    if resume is not None:
        overrides["resume"] = str(resume)
        base = config = _saved_config(resume) or base
    if output != wanted.output_dir:
        overrides["output_dir"] = str(output)
    return Plan(config=base, is_automatic=config is None, overrides=overrides, output_dir=output)


def configure(
    options: TrainOptions, plan: Plan, progress: TrainingProgress
) -> tuple[YAMLConfig, Splits | None]:
    """Read the dataset, and turn a plan into a configuration.

    Without a configuration file, choose initial weights and, on a CPU, a short schedule.

    Returns:
        The configuration, and the splits of the dataset if it is given.
    """
    overrides, folder, splits = plan.overrides, options.folder, None
    if folder is not None:
        if options.sample:
            progress.show("generating the sample dataset")
            digits.make_digits_dataset(folder)
        progress.show("reading the dataset")
        splits = find_splits(folder, plan.output_dir / CONVERTED)
        overrides = merge(auto_config.data_overrides(splits.train, splits.val), overrides)
        if splits.note:
            progress.notice(splits.note)
    if not plan.is_automatic:
        return YAMLConfig(plan.config, **overrides), splits

    if not options.tuning:
        progress.show("looking for pretrained weights")
        chosen, message = auto_config.initial_weights(find_model(options.model or "S")[1])
        progress.notice(message)
        overrides = merge(chosen, overrides)
    device = str(overrides.get("device") or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device == "cpu" and not options.test_only:
        progress.show("timing a few steps to choose a schedule")
        overrides, message = auto_config.fit_to_cpu(plan.config, overrides)
        progress.notice(message)
    return YAMLConfig(plan.config, **overrides), splits


def _of_checkpoint(
    options: TrainOptions, checkpoint: str | None
) -> tuple[Path | None, Path | None, dict[str, Any]]:
    """Return the configuration of a run, or the recipe and the network of its checkpoint.

    Raises:
        CheckpointError: if the checkpoint does not exist.
    """
    is_chosen = options.config is not None or options.model is not None
    if checkpoint and is_folder(checkpoint):
        return options.config, *((None, {}) if is_chosen else _network_of(checkpoint))
    if checkpoint and not is_url(checkpoint):
        path = locate(checkpoint)
        if not is_chosen and (saved := _saved_config(path)) is not None:
            return saved, None, {}
        if not is_chosen:
            return path, None, _folder_of(options, path)
    return options.config, None, {}


def _folder_of(options: TrainOptions, checkpoint: Path) -> dict[str, Any]:
    """Return the default output folder of a run with the configuration in a checkpoint."""
    if options.resume:
        return {"output_dir": str(checkpoint.parent)}
    folder = options.folder
    return {} if folder is None else {"output_dir": str(Path("output", folder.resolve().name))}


def _network_of(folder: str) -> tuple[Path, dict[str, Any]]:
    """Return the recipe for the backbone of a folder of `transformers`, and its network.

    Raises:
        CheckpointError: if the folder is damaged, or contains another model.
    """
    values = open_checkpoint(folder)[0]["config"]
    name = values["RTDETR"]["backbone"]
    backbone = values[name]
    part = f"r{backbone['depth']}vd" if name == "PResNet" else f"hgnetv2_{backbone['name'].lower()}"
    schedules = (RECIPES / f"rtdetrv2_{part}_{each}_coco.yml" for each in ("120e", "6x"))
    recipe = next(path for path in schedules if path.is_file())
    return recipe, {key: value for key, value in values.items() if key != "num_classes"}


def _named_weights(options: TrainOptions) -> dict[str, Any]:
    """Return the overrides for weights that are given by name.

    Raises:
        ConfigError: if the model has no such weights.
    """
    assert options.tuning is not None
    if options.tuning == NONE:
        return {"tuning": "", **random_backbones()}
    model = options.model or ("S" if options.config is None else options.config.stem)
    return {"tuning": published_weights(options.tuning, model)}


def _saved_config(checkpoint: Path) -> Path | None:
    """Return the configuration beside a checkpoint, or beside its folder as in an experiment."""
    folder = checkpoint.expanduser().absolute().parent
    found = (each / MODEL_CONFIG for each in (folder, folder.parent))
    return next((path for path in found if path.is_file()), None)


def _checked(config: Path, overrides: dict[str, Any]) -> YAMLConfig:
    """Check all settings, the device and the packages of trackers."""
    logging.disable(logging.WARNING)  # the training logs the same warnings
    try:
        cfg = YAMLConfig(config, **overrides)
        with located(cfg.layers):
            cfg.device  # noqa: B018 (checks that it is available)
            check_installed(cfg.settings.loggers)
        return cfg
    finally:
        logging.disable(logging.NOTSET)


def _choose_output(
    options: TrainOptions, cfg: YAMLConfig, progress: TrainingProgress
) -> tuple[Path, Path | None]:
    """Return the output folder, and the checkpoint to resume if it was found there."""
    wanted, given = cfg.output_dir, cfg.settings.resume
    if options.resume == "":
        return wanted, wanted / LAST if (wanted / LAST).is_file() else None
    is_same = given is not None and Path(given).parent.resolve() == wanted.resolve()
    if options.test_only or options.overwrite or is_same:
        return wanted, None
    return choose_output(wanted, data=options.folder, progress=progress)
