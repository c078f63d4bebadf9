"""The time that a training takes."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rtdetrv2_pytorch.src.misc.text import counted
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
) -> Estimate:
    """Compute the time of a training from its measured speed.

    Args:
        speed: of one rank.
        values: hyperparameters, with defaults.
        num_train: training images.
        num_val: validation images.
        device: of the first rank.
        num_ranks: that share a batch, and the validation images.
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
    budget = values.get("time_budget")
    return Estimate(
        epochs=time.epochs_within(parse_duration(budget)) if budget else int(values["epoches"]),
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


# Assumed durations of what follows a training, in seconds: their speed is not known before.
_UPLOAD_S = 60.0
_STEPS_S = {"evaluation report": 180.0, "ONNXRuntime": 90.0, "TensorRT": 600.0}


def reserve_seconds(steps: Iterable[str]) -> float:
    """Return the seconds to reserve for the upload and the selected steps after a training."""
    return _UPLOAD_S + sum(_STEPS_S.get(step.replace("_", " "), 0.0) for step in steps)
