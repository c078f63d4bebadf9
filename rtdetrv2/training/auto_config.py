"""Default choices for training without a configuration file: weights, and a schedule for CPUs."""

import logging
import math
import os
import time
from pathlib import Path
from typing import Any

import torch

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.data.splits import Split
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError
from rtdetrv2_pytorch.src.misc.text import counted
from rtdetrv2_pytorch.src.misc.weights import locate
from rtdetrv2_pytorch.src.solver.loop import train_one_epoch
from rtdetrv2_pytorch.src.solver.progress import EpochProgress
from rtdetrv2_pytorch.src.solver.run import TrainingRun
from rtdetrv2_pytorch.src.solver.stopping import StopFlag

from .model_table import MODELS

COCO_WEIGHTS = MODELS["S"][1]
TIMED_STEPS = 4

_CPU_BUDGET_S = 8 * 60  # for training and evaluation, without startup and saving
_CPU_BATCH = 4
_SMALL_IMAGE = 400  # pixels; smaller images are trained at 256
_FEW_BOXES = 50  # per image; 100 queries are enough for that


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
        url: of the weights; default: those of RT-DETRv2-S.

    Returns:
        Overrides of the configuration, and a message for the user.
    """
    try:
        path = locate(url or COCO_WEIGHTS)
    except CheckpointError as error:
        return (
            {"PResNet": {"pretrained": False}},
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
        chosen = cpu_overrides(
            longest_side=max(record.image.shape[1:]),
            max_boxes=int(boxes.max(initial=0)),
            is_from_scratch=not overrides.get("tuning"),
        )
        chosen = merge(chosen, overrides)
        cfg = YAMLConfig(config, **merge(chosen, {"epoches": 1, "num_workers": 0}))
        step_s = time_step(cfg)
        return choose_epochs(chosen, len(cfg.train_dataloader), step_s, len(probe.val_dataset))
    finally:
        logging.disable(logging.NOTSET)


def cpu_overrides(*, longest_side: int, max_boxes: int, is_from_scratch: bool) -> dict[str, Any]:
    """Make the published recipe fast enough for a CPU; `longest_side` is in pixels."""
    side = 256 if longest_side <= _SMALL_IMAGE else 320
    overrides: dict[str, Any] = {
        "eval_spatial_size": [side, side],
        "use_amp": True,
        "lr_scheduler": {"type": "FlatCosineLR"},
        # Strong augmentation does not pay in a run this short.
        "train_dataloader": {
            "total_batch_size": _CPU_BATCH,
            "num_workers": 1,
            "dataset": {"transforms": {"policy": {"epoch": 0}}},
            "collate_fn": {"scales": None},
        },
        "val_dataloader": {"total_batch_size": 2 * _CPU_BATCH, "num_workers": 1},
        "checkpoint_freq": 0,
        "print_freq": 20,
    }
    if max_boxes <= _FEW_BOXES:
        overrides["RTDETRTransformerv2"] = {"num_queries": 100}
    if is_from_scratch:
        overrides["optimizer"] = {"lr": 0.0005}
    return overrides


def choose_epochs(
    values: dict[str, Any], steps: int, step_s: float, num_val_images: int
) -> tuple[dict[str, Any], str]:
    """Choose the number of epochs for the time budget, unless `values` contains it.

    Args:
        values: the other choices.
        steps: training steps per epoch.
        step_s: seconds per training step; the forward pass of an evaluation takes a third of it.
        num_val_images: validation images.

    Returns:
        The values with the number of epochs, and a message for the user.
    """
    epoch_s = steps * step_s + num_val_images * step_s / _CPU_BATCH / 3
    values = merge({"epoches": max(1, math.floor(_CPU_BUDGET_S / epoch_s))}, values)
    epochs = values["epoches"]
    height, width = values["eval_spatial_size"]
    minutes = math.ceil(epochs * epoch_s / 60)
    return values, (
        f"No GPU: training at {height}x{width} pixels for {counted(epochs, 'epoch')} of "
        f"{counted(steps, 'step')} at {step_s:.2f} s, about {counted(minutes, 'minute')}. Use a "
        "GPU for the full recipe, or choose the epochs with --epochs 20"
    )


def time_step(cfg: YAMLConfig) -> float:
    """Train a few steps on the CPU; return the seconds of the fastest one."""
    cfg.device = torch.device("cpu")
    run = TrainingRun.create(cfg)
    stop = StopFlag()
    seconds: list[float] = []
    begin = time.perf_counter()

    def after_step(progress: EpochProgress) -> None:
        nonlocal begin
        seconds.append(time.perf_counter() - begin)
        if progress.step >= TIMED_STEPS:
            stop.request("timing finished")
        begin = time.perf_counter()

    train_one_epoch(run, stop=stop, after_step=after_step)
    return min(seconds)
