"""The mean of the weights of several epochs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rtdetrv2_pytorch.src.misc.weights import load_checkpoint
from rtdetrv2_pytorch.src.report.run_log import Event


def average_best(folder: Path, epochs: Sequence[Event], count: int) -> Path:
    """Write averaged.pth with the mean weights of the epochs with the highest AP.

    Args:
        folder: of a run with a checkpoint of every epoch.
        epochs: its epochs.
        count: number of epochs; all of them if there are fewer.

    Returns:
        The path of the checkpoint.
    """
    measured = [event for event in epochs if "AP" in event]
    best = sorted(measured, key=lambda event: event["AP"])[-count:]
    contents = [load_checkpoint(folder / f"checkpoint{e['epoch']:04d}.pth") for e in best]
    path = folder / "averaged.pth"
    torch.save({**contents[-1], "model": _mean([each["model"] for each in contents])}, path)
    return path


def _mean(weights: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean of all floating-point tensors; the others are those of the last one."""
    return {
        name: torch.stack([each[name] for each in weights]).mean(0)
        if value.is_floating_point()
        else value
        for name, value in weights[-1].items()
    }
