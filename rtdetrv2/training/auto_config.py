"""Default choices for training without a configuration file: weights, and a schedule for CPUs."""

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.augmentation import TRANSFORMS
from rtdetrv2_pytorch.src.core.catalog import random_backbones
from rtdetrv2_pytorch.src.core.yaml_files import get, merge
from rtdetrv2_pytorch.src.data.splits import Split
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError
from rtdetrv2_pytorch.src.misc.text import counted
from rtdetrv2_pytorch.src.misc.weights import locate
from rtdetrv2_pytorch.src.solver.speed_test import measure_speed
from rtdetrv2_pytorch.src.timing.estimates import EpochTime, Speed

from .data_extent import DataExtent
from .model_table import MODELS

COCO_WEIGHTS = MODELS["S"][1]

CPU_BUDGET_S = 8 * 60  # for training and evaluation, without startup and saving
_CPU_BATCH = 4
_CPU_WORKERS = 1
_SMALL_IMAGE = 400  # pixels; smaller images are trained at 256
_FEW_BOXES = 50  # per image; 100 queries are enough for that
# From random weights: learning rates by boxes per batch (decision 0032), and in trainings as short
# as the measured ones pasted objects instead of other augmentation (decisions 0033, 0035).
_SCRATCH_LR, _SPARSE_SCRATCH_LR, _SPARSE_BATCH = 0.0005, 0.0002, 10
_SHORT_EPOCHS, _SHORT_BOXES = 40, 20_000
_PASTE = 0.5


def data_overrides(train: Split, val: Split) -> dict[str, Any]:
    """Point a configuration at the two splits of a dataset."""
    return {
        f"{name}_dataloader": {
            "dataset": {
                "type": "CocoDetection",
                "img_folder": str(split.img_folder),
                "ann_file": str(split.ann_file),
            }
        }
        for name, split in (("train", train), ("val", val))
    }


def initial_weights(url: str | None = None) -> tuple[dict[str, Any], str]:
    """Choose the published COCO weights, or random weights if they are not available.

    Args:
        url: of the weights; default: those of RT-DETRv2-S. If it is empty, the model has none.

    Returns:
        Overrides of the configuration, and a message for the user.
    """
    if url == "":
        return {}, "No published weights of this model: training from those of its backbone"
    try:
        path = locate(url or COCO_WEIGHTS)
    except CheckpointError as error:
        return (
            random_backbones(),
            f"Training from random weights; expect much lower accuracy. {error}",
        )
    return {"tuning": str(path)}, f"Fine-tuning the published COCO weights {path}"


def fit_to_cpu(config: Path, overrides: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Choose image size, queries and epochs so that training takes about ten minutes on this CPU.

    Trains a few steps on the user's images to measure the speed. `overrides` take precedence.

    Returns:
        Overrides of the configuration, and a message for the user.

    Raises:
        ConfigError: if there are several ranks, which could choose differently.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError(
            "a schedule can only be chosen for one process; to train with several ranks on CPUs, "
            "give a configuration with -c"
        )
    logging.disable(logging.WARNING)  # the training logs the same warnings
    try:
        probe = YAMLConfig(config, **overrides)
        _, record = probe.train_dataset.load_readable(0)
        boxes = probe.train_dataset.annotations.boxes_per_image()
        is_from_scratch = not (overrides.get("tuning") or _has_pretrained_backbone(probe))
        chosen = cpu_overrides(
            DataExtent(
                longest_side=max(record.image.shape[1:]),
                max_boxes=int(boxes.max(initial=0)),
                mean_boxes=float(boxes.mean()),
            ),
            is_from_scratch=is_from_scratch,
        )
        chosen = merge(chosen, overrides)
        if probe.settings.time_budget is not None:
            height, width = chosen["eval_spatial_size"]
            return chosen, (
                f"No GPU: training at {height}x{width} pixels. Use a GPU for the full recipe"
            )
        probed = {"epoches": 1, "num_workers": 0, "device": "cpu"}
        cfg = YAMLConfig(config, **merge(chosen, probed))
        num_val = len(probe.val_dataset)
        chosen, message = choose_epochs(
            chosen, len(cfg.train_dataloader), measure_speed(cfg), num_val
        )
        if is_from_scratch:
            short = scratch_augmentation(
                epochs=chosen["epoches"],
                num_boxes=float(boxes.sum()),
                num_classes=np.unique(probe.train_dataset.annotations.labels).size,
                given=overrides,
            )
            chosen = merge(short, chosen)
        return chosen, message
    finally:
        logging.disable(logging.NOTSET)


def _has_pretrained_backbone(cfg: YAMLConfig) -> bool:
    """Return whether a network without published weights starts from those of its backbone."""
    return bool(get(cfg.yaml_cfg, (str(get(cfg.yaml_cfg, ("RTDETR", "backbone"))), "pretrained")))


def cpu_overrides(extent: DataExtent, *, is_from_scratch: bool) -> dict[str, Any]:
    """Make the published recipe fast enough for a CPU.

    Args:
        extent: of the dataset.
        is_from_scratch: whether the model starts from random weights.
    """
    side = 256 if extent.longest_side <= _SMALL_IMAGE else 320
    overrides: dict[str, Any] = {
        "eval_spatial_size": [side, side],
        "use_amp": True,
        "lr_scheduler": {"type": "FlatCosineLR"},
        # Strong augmentation does not pay in a run this short.
        "train_dataloader": {
            "total_batch_size": _CPU_BATCH,
            "num_workers": _CPU_WORKERS,
            "dataset": {"transforms": {"policy": {"epoch": 0}}},
            "collate_fn": {"scales": None},
        },
        "val_dataloader": {"total_batch_size": 2 * _CPU_BATCH, "num_workers": _CPU_WORKERS},
        "checkpoint_freq": 0,
        "print_freq": 20,
    }
    if extent.max_boxes <= _FEW_BOXES:
        overrides["RTDETRTransformerv2"] = {"num_queries": 100}
    if is_from_scratch:
        is_sparse = _CPU_BATCH * extent.mean_boxes < _SPARSE_BATCH
        overrides["optimizer"] = {"lr": _SPARSE_SCRATCH_LR if is_sparse else _SCRATCH_LR}
    return overrides


def scratch_augmentation(
    *, epochs: int, num_boxes: float, num_classes: int, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Choose the augmentation of a training from random weights on a CPU.

    Args:
        epochs: of the training.
        num_boxes: in the training images.
        num_classes: to learn.
        given: settings of the user, with priority over the result.

    Returns:
        Overrides of the configuration, with which a short training pastes objects of all classes
        equally often, instead of mirroring images; empty for a longer training, or where the user
        chose operations or their epochs. Nothing is pasted with one class, or if the user chose an
        augmentation or a recipe; with a recipe, images are not augmented otherwise.
    """
    is_long = epochs > _SHORT_EPOCHS or epochs * num_boxes >= _SHORT_BOXES
    if is_long or get(given, TRANSFORMS) is not None:
        return {}
    if num_classes < 2 or any(key in given for key in ("augmentation", "recipe")):
        return {"augmentation": "none"}
    return {"augmentation": "none", "balanced_paste": _PASTE}


def choose_epochs(
    values: dict[str, Any], steps: int, speed: Speed, num_val_images: int
) -> tuple[dict[str, Any], str]:
    """Choose the number of epochs for the time budget, unless `values` contains it.

    Args:
        values: the other choices.
        steps: training steps per epoch.
        speed: on this CPU.
        num_val_images: validation images.

    Returns:
        The values with the number of epochs, and a message for the user.
    """
    step_s = cpu_step_s(speed)
    freq = int(values.get("eval_freq") or 1)
    one = EpochTime(steps * step_s, num_val_images * speed.val_image_s, freq)
    values = merge({"epoches": one.epochs_within(CPU_BUDGET_S)}, values)
    epochs = values["epoches"]
    height, width = values["eval_spatial_size"]
    minutes = math.ceil(one.seconds(0, epochs) / 60)
    return values, (
        f"No GPU: training at {height}x{width} pixels for {counted(epochs, 'epoch')} of "
        f"{counted(steps, 'step')} at {step_s:.2f} s, about {counted(minutes, 'minute')}. Use a "
        "GPU for the full recipe, or choose the epochs with --epochs 20"
    )


def cpu_step_s(speed: Speed) -> float:
    """Return the seconds per training step with the workers of `cpu_overrides`."""
    return speed.step_s(num_workers=_CPU_WORKERS, num_cores=os.cpu_count() or 1, is_gpu=False)
