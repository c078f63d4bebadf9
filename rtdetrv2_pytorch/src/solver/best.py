"""The best epoch of a run."""

import math
from collections.abc import Mapping
from typing import Any

from ..data.metrics.evaluator import Evaluation


class BestSoFar:
    """Tracks the epoch with the highest AP; saved in checkpoints."""

    def __init__(self) -> None:
        self.ap = -math.inf
        self.epoch = -1
        self.stale_epochs = 0  # from the best to the last evaluated epoch
        self.evaluation: Evaluation | None = None  # None if it was evaluated before a resume

    def update(self, epoch: int, evaluation: Evaluation) -> bool:
        """Compare an epoch with the best one; returns whether it is better."""
        ap = evaluation.stats["AP"]
        if ap > self.ap:
            self.ap, self.epoch, self.evaluation, self.stale_epochs = ap, epoch, evaluation, 0
            return True
        self.stale_epochs = epoch - self.epoch
        return False

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"ap": self.ap, "epoch": self.epoch, "stale_epochs": self.stale_epochs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self.ap = float(state["ap"])
        self.epoch = int(state["epoch"])
        self.stale_epochs = int(state["stale_epochs"])
