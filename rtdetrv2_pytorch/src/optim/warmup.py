"""Linear warm-up of the learning rate, on top of any epoch-wise schedule."""

from collections.abc import Sequence
from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from ..misc.ranges import NonNegativeInt


class LinearWarmup:
    """Scales the scheduled rates by (n + 1) / duration for the first optimizer steps.

    The schedule goes on underneath: a milestone inside the warm-up takes effect at its own epoch.

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
        """Whether rates are as scheduled from now on."""
        return self.last_step + 1 >= self.warmup_duration

    def factor(self) -> float:
        """What the scheduled rates are multiplied with in the coming optimizer step."""
        if self.finished():
            return 1.0
        return (self.last_step + 2) / self.warmup_duration

    def step(self) -> None:
        """Tell that an optimizer step is done."""
        was_finished = self.finished()
        self.last_step += 1
        if not was_finished:
            self._apply()

    def step_epoch(self) -> None:
        """Step the epoch-wise schedule as if there were no warm-up, then scale again."""
        groups = self.lr_scheduler.optimizer.param_groups
        for group, lr in zip(groups, self._scheduled, strict=True):
            group["lr"] = lr
        self.lr_scheduler.step()
        self._scheduled = [group["lr"] for group in groups]
        self._apply()

    def follow(self, rates: Sequence[float]) -> None:
        """Take other scheduled rates, one per group, than those met so far."""
        self._scheduled = list(rates)
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {
            "last_step": self.last_step,
            "warmup_duration": self.warmup_duration,
            "warmup_end_values": list(self._scheduled),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; the optimizer must have been loaded before."""
        self.last_step = int(state["last_step"])
        self.warmup_duration = int(state["warmup_duration"])
        if self.finished():
            # The optimizer's own, loaded before: other programs' files keep those of long ago.
            self._scheduled = [group["lr"] for group in self.lr_scheduler.optimizer.param_groups]
        else:
            self._scheduled = [float(lr) for lr in state["warmup_end_values"]]
        self._apply()

    def _apply(self) -> None:
        factor = self.factor()
        groups = self.lr_scheduler.optimizer.param_groups
        for group, lr in zip(groups, self._scheduled, strict=True):
            group["lr"] = lr * factor
