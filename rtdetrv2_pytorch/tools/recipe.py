"""Choices for people who give a folder and nothing else: weights, and what fits a CPU."""

import logging
import math
import os
import time
from pathlib import Path
from typing import Any

import torch

from ..src.core import YAMLConfig
from ..src.core.yaml_files import merge
from ..src.data.splits import Split
from ..src.misc.errors import CheckpointError, ConfigError
from ..src.misc.text import counted
from ..src.misc.weights import locate
from ..src.solver.loop import EpochProgress, train_one_epoch
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
CPU_BATCH = 4
_FEW_BOXES = 50  # in an image: a hundred queries are plenty
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

    Raises:
        ConfigError: for one of several ranks: each would time itself, and train for other epochs.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError(
            "what fits this machine can be chosen for one process only; give several ranks on CPUs "
            "a configuration, -c"
        )
    logging.disable(logging.WARNING)  # what is wrong with the data will be said once, later
    try:
        return _fit_to_cpu(config, overrides)
    finally:
        logging.disable(logging.NOTSET)


def _fit_to_cpu(config: Path, overrides: dict[str, Any]) -> tuple[dict[str, Any], str]:
    probe = YAMLConfig(config, **overrides)
    _, record = probe.train_dataset.load_readable(0)
    chosen = cpu_choices(
        longest_side=max(record.image.shape[1:]),
        most_boxes=int(probe.train_dataset.annotations.boxes_per_image().max(initial=0)),
        is_from_scratch=not overrides.get("tuning"),
    )
    chosen = merge(chosen, overrides)
    steps, step_s = time_steps(
        YAMLConfig(config, **merge(chosen, {"epoches": 1, "num_workers": 0}))
    )
    epoch_s = epoch_seconds(steps, step_s, len(probe.val_dataset))
    chosen = merge({"epoches": epochs_that_fit(epoch_s)}, chosen)
    return chosen, describe_choice(chosen, steps, step_s, epoch_s)


def cpu_choices(*, longest_side: int, most_boxes: int, is_from_scratch: bool) -> dict[str, Any]:
    """What makes the published recipe fit a CPU.

    Args:
        longest_side: of an image, in pixels.
        most_boxes: in one image.
        is_from_scratch: whether it starts from random weights.
    """
    side = 256 if longest_side <= _SMALL_IMAGE else 320
    chosen: dict[str, Any] = {
        "eval_spatial_size": [side, side],
        "use_amp": True,
        "lr_scheduler": {"type": "FlatCosineLR"},
        # Too short a run for the strong augmentation to pay.
        "train_dataloader": {
            "total_batch_size": CPU_BATCH,
            "num_workers": 1,
            "dataset": {"transforms": {"policy": {"epoch": 0}}},
            "collate_fn": {"scales": None},
        },
        "val_dataloader": {"total_batch_size": 2 * CPU_BATCH, "num_workers": 1},
        "checkpoint_freq": 0,
        "print_freq": 20,
    }
    if most_boxes <= _FEW_BOXES:
        chosen["RTDETRTransformerv2"] = {"num_queries": 100}
    if is_from_scratch:
        chosen["optimizer"] = {"lr": 0.0005}
    return chosen


def epoch_seconds(steps: int, step_s: float, num_val_images: int) -> float:
    """Estimate an epoch with its evaluation; a forward pass is a third of a step."""
    return steps * step_s + num_val_images * step_s / CPU_BATCH / 3


def epochs_that_fit(epoch_s: float) -> int:
    """How many epochs end in time; one at least."""
    return max(1, math.floor(_CPU_BUDGET_S / epoch_s))


def describe_choice(chosen: dict[str, Any], steps: int, step_s: float, epoch_s: float) -> str:
    """Say what was chosen, and how long it will take."""
    height, width = chosen["eval_spatial_size"]
    epochs = chosen["epoches"]
    return (
        f"no GPU: {height}x{width} pixels, {counted(epochs, 'epoch')} of {counted(steps, 'step')} "
        f"at {step_s:.2f} s, about {counted(math.ceil(epochs * epoch_s / 60), 'minute')}. For a "
        "full recipe use a GPU, or choose yourself, as in -u epoches=20"
    )


def time_steps(cfg: YAMLConfig) -> tuple[int, float]:
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
