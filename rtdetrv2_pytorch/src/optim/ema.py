"""Exponential moving average (EMA) of the weights, which is evaluated and saved."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from ..misc.ranges import Decay, NonNegativeInt


class ModelEMA:
    """EMA of a model with decay d(n) = decay * (1 - exp(-n / warmups)) after n updates.

    The warm-up reduces the influence of the initial weights. Floating-point buffers such as norm
    statistics are averaged, too; integer buffers keep their initial value.

    Args:
        model: the model to average; copied.
        decay: decay after the warm-up.
        warmups: updates until the decay reaches 63 % of its final value; 0: no warm-up.
    """

    def __init__(
        self, model: nn.Module, *, decay: Decay = 0.9999, warmups: NonNegativeInt = 2000
    ) -> None:
        self.module = copy.deepcopy(unwrap(model)).eval().requires_grad_(False)
        self.decay = decay
        self.warmups = warmups
        self.updates = 0

    def decay_at(self, updates: int) -> float:
        """Return the decay of an update, counted from 1."""
        if self.warmups <= 0:
            return self.decay
        return self.decay * (1 - math.exp(-updates / self.warmups))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update the EMA with the current weights of the model."""
        self.updates += 1
        decay = self.decay_at(self.updates)
        mine, theirs = _floating(self.module), _floating(unwrap(model))
        # Anchors outside the image are infinite, and inf * 0 is NaN: avoid lerp and factors of 0.
        if decay <= 0:
            torch._foreach_copy_(mine, theirs)
        elif decay < 1:
            torch._foreach_mul_(mine, decay)
            torch._foreach_add_(mine, theirs, alpha=1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Return `module`, the EMA weights, and `updates`, the number of updates."""
        return {"module": self.module.state_dict(), "updates": self.updates}


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside data-parallel and compile wrappers."""
    for attribute in ("module", "_orig_mod"):
        if hasattr(model, attribute) and isinstance(getattr(model, attribute), nn.Module):
            return unwrap(getattr(model, attribute))
    return model


def _floating(module: nn.Module) -> list[Tensor]:
    state = module.state_dict()
    return [tensor for tensor in state.values() if tensor.is_floating_point()]
