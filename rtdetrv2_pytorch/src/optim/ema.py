"""The exponential moving average of the weights: what is evaluated and kept."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from ..misc.ranges import Decay, NonNegativeInt


class ModelEMA:
    """Follows a model with decay d(n) = decay * (1 - exp(-n / warmups)) after n updates.

    The ramp lets the average forget the first, bad weights. Buffers (norm statistics) are
    averaged too; integer entries keep their first value.

    Args:
        model: the model to follow; copied.
        decay: share of the old average that is kept, in the long run.
        warmups: updates after which the decay has reached 63 % of its final value; 0: at once.
    """

    def __init__(
        self, model: nn.Module, *, decay: Decay = 0.9999, warmups: NonNegativeInt = 2000
    ) -> None:
        self.module = copy.deepcopy(unwrap(model)).eval().requires_grad_(False)
        self.decay = decay
        self.warmups = warmups
        self.updates = 0

    def decay_at(self, updates: int) -> float:
        """Decay of the given update, counted from 1."""
        if self.warmups <= 0:
            return self.decay
        return self.decay * (1 - math.exp(-updates / self.warmups))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's present weights."""
        self.updates += 1
        decay = self.decay_at(self.updates)
        mine, theirs = _floating(self.module), _floating(unwrap(model))
        # Anchors outside the image are infinite, and infinity times 0 is not a number: not lerp,
        # and neither share may be 0.
        if decay <= 0:
            torch._foreach_copy_(mine, theirs)
        elif decay < 1:
            torch._foreach_mul_(mine, decay)
            torch._foreach_add_(mine, theirs, alpha=1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """`module`: weights; `updates`: how many there were."""
        return {"module": self.module.state_dict(), "updates": self.updates}


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside a data-parallel or compiled wrapper."""
    for attribute in ("module", "_orig_mod"):
        if hasattr(model, attribute) and isinstance(getattr(model, attribute), nn.Module):
            return unwrap(getattr(model, attribute))
    return model


def _floating(module: nn.Module) -> list[Tensor]:
    state = module.state_dict()
    return [tensor for tensor in state.values() if tensor.is_floating_point()]
