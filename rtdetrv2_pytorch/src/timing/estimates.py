"""Durations of trainings, computed from their parts."""

import math
import re
from dataclasses import dataclass

from ..misc.errors import ConfigError

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([mh]?)\s*")
_SECONDS = {"m": 60.0, "h": 3600.0, "": 3600.0}


def parse_duration(value: float | str) -> float:
    """Return the seconds of a duration: "30m", "2h", or a number of hours.

    Raises:
        ConfigError: if it has another format or is not above 0.
    """
    match = _DURATION.fullmatch(str(value))
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0 < seconds < math.inf:
        raise ConfigError(
            f"time_budget = {value!r}: give minutes as 30m, or hours as 2h or 1.5, above 0"
        )
    return seconds


@dataclass(frozen=True)
class Speed:
    """Speed of a training on one device, in seconds."""

    compute_s: float  # per training step, without loading
    load_s: float  # to load the batch of a step in one process
    val_image_s: float  # per validation image, with loading

    def step_s(self, *, num_workers: int, num_cores: int, is_gpu: bool) -> float:
        """Return the seconds per training step.

        Workers load batches while a GPU computes. On a CPU, they compete with the training for its
        cores.

        Args:
            num_workers: processes that load images; 0 loads them between the steps.
            num_cores: of the CPU.
            is_gpu: whether the training runs on a GPU.
        """
        if num_workers == 0:
            return self.compute_s + self.load_s
        if is_gpu:
            return max(self.compute_s, self.load_s / min(num_workers, num_cores))
        return self.compute_s + self.load_s / num_cores


@dataclass(frozen=True)
class EpochTime:
    """The duration of an epoch's training and of an evaluation, in seconds."""

    train_s: float
    eval_s: float
    eval_freq: int = 1  # epochs between two evaluations

    def seconds(self, first: int, epochs: int) -> float:
        """Return the seconds of the epochs from `first` to the last of `epochs`, which counts."""
        evaluations = math.ceil(epochs / self.eval_freq) - first // self.eval_freq
        return (epochs - first) * self.train_s + evaluations * self.eval_s

    def epochs_within(self, budget_s: float) -> int:
        """Return the number of epochs that fit in a time budget, 1 or more."""
        block_s = self.eval_freq * self.train_s + self.eval_s
        blocks = max(0, math.floor(budget_s / block_s))
        rest_s = budget_s - blocks * block_s - self.eval_s
        rest = min(self.eval_freq - 1, max(0, math.floor(rest_s / self.train_s)))
        return max(1, blocks * self.eval_freq + rest)
