"""The time that a training takes."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rtdetrv2_pytorch.src.misc.text import counted
from rtdetrv2_pytorch.src.timing.budget import TimeBudget
from rtdetrv2_pytorch.src.timing.estimates import EpochTime, Speed, parse_duration


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The time of training and evaluation."""

    epochs: int
    steps: int  # per epoch
    step_s: float
    time: EpochTime
    is_limit: bool = False  # early stopping may end the training before

    @property
    def epoch_s(self) -> float:
        """Seconds of an epoch with its evaluation."""
        return self.time.seconds(0, 1)

    @property
    def seconds(self) -> float:
        """Seconds of the whole training."""
        return self.time.seconds(0, self.epochs)

    def __str__(self) -> str:
        """Format the time and its parts."""
        about = "at most about" if self.is_limit else "about"
        return (
            f"{about} {format_minutes(self.seconds)} ({counted(self.epochs, 'epoch')} of "
            f"{counted(self.steps, 'step')} at {self.step_s:.2g} s, evaluation included)"
        )


def estimate(
    speed: Speed,
    values: Mapping[str, Any],
    *,
    num_train: int,
    num_val: int,
    device: str,
    num_ranks: int = 1,
    reserve_s: float = 0.0,
) -> Estimate:
    """Compute the time of a training from its measured speed.

    Args:
        speed: of one rank.
        values: hyperparameters, with defaults.
        num_train: training images.
        num_val: validation images.
        device: of the first rank.
        num_ranks: that share a batch, and the validation images.
        reserve_s: of a time budget, for what follows the training.
    """
    step_s = speed.step_s(
        num_workers=int(values["num_workers"]),
        num_cores=os.cpu_count() or 1,
        is_gpu=device != "cpu",
    )
    steps = max(1, num_train // int(values["batch_size"]))  # an incomplete batch is dropped
    time = EpochTime(
        train_s=steps * step_s,
        eval_s=num_val * speed.val_image_s / num_ranks,
        eval_freq=int(values.get("eval_freq") or 1),
    )
    epochs = int(values["epoches"])
    if values.get("time_budget"):
        budget = TimeBudget(
            seconds=parse_duration(values["time_budget"]),
            start_s=0.0,
            reserve_s=reserve_s,
            clock=lambda: 0.0,
        )
        epochs = time.epochs_within(budget.left_s() - time.eval_s)  # without that of best.pth
    return Estimate(
        epochs=epochs,
        steps=steps,
        step_s=step_s,
        time=time,
        is_limit=bool(values.get("patience")),
    )


def format_minutes(seconds: float) -> str:
    """Format a duration as 40 s, 12 min or 3 h 20 min."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{max(seconds, 0):.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
