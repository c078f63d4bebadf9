"""Running totals of an epoch and of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

_STEPS = "steps"  # entry of the loss sums: the number of steps added


@dataclass
class EpochProgress:
    """Running totals of an epoch. Losses stay on the device until they are read."""

    epoch: int
    num_steps: int
    step: int = 0  # finished steps
    images: int = 0
    data_s: float = 0.0
    total_s: float = 0.0
    timed_steps: int = 0
    skipped: int = 0
    names: list[str] = field(default_factory=list)
    last: Tensor | None = None  # [terms] of the last computed step
    total: Tensor | None = None  # [terms + 1] sums over finite steps, and their number
    before: Mapping[str, float] = field(default_factory=dict)  # `sums` before a resume
    grad_norm: Tensor | None = None

    def add(self, losses: dict[str, Tensor]) -> None:
        """Add the loss terms of a step; non-finite losses are ignored, on the device."""
        self.names = list(losses)
        self.last = torch.stack([v.detach() for v in losses.values()])
        is_finite = self.last.sum().isfinite()
        values = torch.where(is_finite, self.last, 0.0)
        values = torch.cat((values, is_finite.to(values.dtype)[None]))
        self.total = values if self.total is None else self.total.add_(values)

    def read_last(self) -> dict[str, float]:
        """Return the loss terms of the last computed step; waits for the device."""
        return {} if self.last is None else dict(zip(self.names, self.last.tolist(), strict=True))

    def sums(self) -> dict[str, float]:
        """Return the sums of the loss terms and the number of steps; waits for the device."""
        if self.total is None:
            return dict(self.before)
        sums = dict(zip([*self.names, _STEPS], self.total.tolist(), strict=True))
        if sums.keys() != self.before.keys():  # no earlier sums, or those of other losses
            return sums
        return {name: value + self.before[name] for name, value in sums.items()}


@dataclass
class Pace:
    """Durations of all finished epochs of a run in this process."""

    steps: int = 0
    train_s: float = 0.0
    evaluations: int = 0
    eval_s: float = 0.0

    def add(self, progress: EpochProgress, eval_s: float | None) -> None:
        """Add a finished epoch with its evaluation, if it had one."""
        self.steps += progress.timed_steps
        self.train_s += progress.total_s
        if eval_s is not None:
            self.evaluations += 1
            self.eval_s += eval_s


def average_of(sums: Mapping[str, float]) -> dict[str, float]:
    """Return the mean loss terms per step from `EpochProgress.sums`."""
    steps = max(sums.get(_STEPS, 0), 1)
    return {name: value / steps for name, value in sums.items() if name != _STEPS}
