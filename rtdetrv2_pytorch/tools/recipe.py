"""Choices for people who give a folder and nothing else: weights, and what fits a CPU."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import torch

from ..src.core import YAMLConfig
from ..src.core.yaml_files import merge
from ..src.data.layouts import Split
from ..src.misc.errors import CheckpointError
from ..src.misc.weights import locate
from ..src.solver.engine import EpochProgress, train_one_epoch
from ..src.solver.setup import set_up
from ..src.solver.stopping import StopFlag

logger = logging.getLogger(__name__)

CONFIGS = Path(__file__).parents[1] / "configs"
DEFAULT_CONFIG = CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml"
SAMPLE_CONFIG = CONFIGS / "sample_digits.yml"
COCO_WEIGHTS = (
    "https://github.com/lyuwenyu/storage/releases/download/v0.2/"
    "rtdetrv2_r18vd_120e_coco_rerun_48.1.pth"
)

_CPU_BUDGET_S = 8 * 60  # for training and evaluating; starting and saving come on top
_CPU_BATCH = 4
_SMALL_IMAGE = 400  # pixels: images up to this size are trained at 256
_TIMED_STEPS = 4


def data_overrides(train: Split, val: Split) -> dict[str, Any]:
    """Point a configuration at the two splits of a folder."""
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


def initial_weights() -> tuple[dict[str, Any], str]:
    """Weights to start from: COCO's where they can be had, else none.

    Returns:
        Overrides, and what to tell people.
    """
    try:
        path = locate(COCO_WEIGHTS)
    except CheckpointError as error:
        return (
            {"PResNet": {"pretrained": False}},
            f"starting from random weights, which takes far longer to become good: {error}",
        )
    return {"tuning": str(path)}, f"starting from the published COCO weights, {path}"


def fit_to_cpu(config: Path, overrides: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Choose image size, queries and epochs so that a run ends within about ten minutes.

    A few steps are timed on this machine with the user's own images.

    Args:
        config: the configuration file.
        overrides: what is chosen already; it wins over what is chosen here.

    Returns:
        Overrides, and what to tell people.
    """
    logging.disable(logging.WARNING)  # what is wrong with the data will be said once, later
    try:
        return _fit_to_cpu(config, overrides)
    finally:
        logging.disable(logging.NOTSET)


def _fit_to_cpu(config: Path, overrides: dict[str, Any]) -> tuple[dict[str, Any], str]:
    probe = YAMLConfig(config, **overrides)
    _, record = probe.train_dataset.load_readable(0)
    most_boxes = int(probe.train_dataset.annotations.boxes_per_image().max(initial=0))
    side = 256 if max(record.image.shape[1:]) <= _SMALL_IMAGE else 320
    chosen: dict[str, Any] = {
        "eval_spatial_size": [side, side],
        "use_amp": True,
        "lr_scheduler": {"type": "FlatCosineLR"},
        # Too short a run for the strong augmentation to pay.
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
    if most_boxes <= 50:
        chosen["RTDETRTransformerv2"] = {"num_queries": 100}
    if not overrides.get("tuning"):
        chosen["optimizer"] = {"lr": 0.0005}
    chosen = merge(chosen, overrides)

    steps, step_s = _time_steps(
        YAMLConfig(config, **merge(chosen, {"epoches": 1, "num_workers": 0}))
    )
    images = len(probe.val_dataset)
    epoch_s = steps * step_s + images * step_s / _CPU_BATCH / 3  # forward: a third of a step
    epochs = max(1, math.floor(_CPU_BUDGET_S / epoch_s))
    chosen = merge({"epoches": epochs}, chosen)
    epochs = chosen["epoches"]  # of the user, if there is one
    height, width = chosen["eval_spatial_size"]
    told = (
        f"no GPU: {height}x{width} pixels, {epochs} epochs of {steps} steps at {step_s:.2f} s, "
        f"about {epochs * epoch_s / 60:.0f} minutes. For a full recipe use a GPU, or choose "
        "yourself with -c and -u"
    )
    return chosen, told


def _time_steps(cfg: YAMLConfig) -> tuple[int, float]:
    """Batches of an epoch, and seconds of one training step."""
    cfg.device = torch.device("cpu")
    state, _ = set_up(cfg)
    stop = StopFlag()
    seconds: list[float] = []
    begin = time.perf_counter()

    def after_step(progress: EpochProgress) -> None:
        nonlocal begin
        seconds.append(time.perf_counter() - begin)
        if progress.step >= _TIMED_STEPS:
            stop.request("timed")
        begin = time.perf_counter()

    train_one_epoch(state, cfg.train_dataloader, 0, stop=stop, after_step=after_step)
    return len(cfg.train_dataloader), min(seconds)
