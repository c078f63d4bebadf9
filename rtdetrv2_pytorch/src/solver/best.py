"""The best epoch so far, and how long ago it was."""

import math
from collections.abc import Mapping
from typing import Any

from ..data.metrics.evaluator import Evaluation


class BestSoFar:
    """Remembers the epoch with the highest AP; survives a resume."""

    def __init__(self) -> None:
        self.ap = -math.inf
        self.epoch = -1
        self.stale_epochs = 0  # evaluations since then
        self.evaluation: Evaluation | None = None  # None if it was measured before a resume

    def update(self, epoch: int, evaluation: Evaluation) -> bool:
        """Take an epoch into account; returns whether it is the best."""
        ap = evaluation.stats["AP"]
        if ap > self.ap:
            self.ap, self.epoch, self.evaluation, self.stale_epochs = ap, epoch, evaluation, 0
            return True
        self.stale_epochs += 1
        return False

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"ap": self.ap, "epoch": self.epoch, "stale_epochs": self.stale_epochs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.ap = float(state["ap"])
        self.epoch = int(state["epoch"])
        self.stale_epochs = int(state["stale_epochs"])
