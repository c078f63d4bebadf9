"""Linear warm-up of the learning rate on top of an epoch-wise schedule."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from ..misc.ranges import NonNegativeInt


class LinearWarmup:
    """Scale the scheduled learning rates by (n + 1) / duration for the first optimizer steps.

    The schedule advances during the warm-up: a milestone takes effect at its epoch.

    Args:
        lr_scheduler: the epoch-wise schedule.
        warmup_duration: optimizer steps; 0 for none.
        last_step: the optimizer step just finished; -1 before the first.
    """

    def __init__(
        self, lr_scheduler: LRScheduler, *, warmup_duration: NonNegativeInt, last_step: int = -1
    ) -> None:
        self.lr_scheduler = lr_scheduler
        self.warmup_duration = warmup_duration
        self.last_step = last_step
        self._scheduled = [group["lr"] for group in lr_scheduler.optimizer.param_groups]
        self._apply()

    def finished(self) -> bool:
        """Return whether the warm-up is complete."""
        return self.last_step + 1 >= self.warmup_duration

    def factor(self) -> float:
        """Return the factor of the scheduled learning rates in the next optimizer step."""
        if self.finished():
            return 1.0
        return (self.last_step + 2) / self.warmup_duration

    def step(self) -> None:
        """Advance by one optimizer step."""
        was_finished = self.finished()
        self.last_step += 1
        if not was_finished:
            self._apply()

    def step_epoch(self) -> None:
        """Step the schedule with the unscaled learning rates, then apply the warm-up factor."""
        groups = self.lr_scheduler.optimizer.param_groups
        for group, lr in zip(groups, self._scheduled, strict=True):
            group["lr"] = lr
        self.lr_scheduler.step()
        self._scheduled = [group["lr"] for group in groups]
        self._apply()

    def follow(self, rates: Sequence[float]) -> None:
        """Replace the scheduled learning rates, one per group."""
        self._scheduled = list(rates)
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a resumed run."""
        return {
            "last_step": self.last_step,
            "warmup_duration": self.warmup_duration,
            "warmup_end_values": list(self._scheduled),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the position. The duration is this run's, and `follow` sets the rates."""
        self.last_step = int(state["last_step"])
        self._apply()

    def _apply(self) -> None:
        factor = self.factor()
        groups = self.lr_scheduler.optimizer.param_groups
        for group, lr in zip(groups, self._scheduled, strict=True):
            group["lr"] = lr * factor
