"""Exponential moving average (EMA) of the weights, which is evaluated and saved."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..misc.ranges import Decay, NonNegativeInt


class ModelEMA:
    """EMA of a model with decay d(n) = decay * (1 - exp(-n / warmups)) after n updates.

    The warm-up reduces the influence of the initial weights. Trained parameters and the statistics
    of batch norms are averaged. Constants (anchors, frozen norms, frozen parameters) are copied,
    for their average would drift by rounding. Integer buffers keep their initial value.

    Args:
        model: the model to average; copied.
        decay: decay after the warm-up.
        warmups: updates until the decay reaches 63 % of its final value; 0: no warm-up.
    """

    def __init__(
        self, model: nn.Module, *, decay: Decay = 0.9999, warmups: NonNegativeInt = 2000
    ) -> None:
        self.module = copy.deepcopy(unwrap(model)).eval().requires_grad_(False)
        changing = _changing(unwrap(model))
        self._is_averaged = [name in changing for name in _floating(unwrap(model))]
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
        pairs = zip(mine.values(), theirs.values(), self._is_averaged, strict=True)
        averages, values = [], []
        for average, value, is_averaged in pairs:
            if is_averaged:
                averages.append(average)
                values.append(value)
            else:
                average.copy_(value)
        if decay <= 0:
            torch._foreach_copy_(averages, values)
        elif decay < 1:
            torch._foreach_mul_(averages, decay)
            torch._foreach_add_(averages, values, alpha=1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Return `module`, the EMA weights, and `updates`, the number of updates."""
        return {"module": self.module.state_dict(), "updates": self.updates}


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside data-parallel and compile wrappers."""
    for attribute in ("module", "_orig_mod"):
        if hasattr(model, attribute) and isinstance(getattr(model, attribute), nn.Module):
            return unwrap(getattr(model, attribute))
    return model


def _floating(module: nn.Module) -> dict[str, Tensor]:
    state = module.state_dict()
    return {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}


def _changing(module: nn.Module) -> set[str]:
    """Return the names of the trained parameters and of the statistics of batch norms."""
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    for prefix, part in module.named_modules():
        if isinstance(part, _BatchNorm) and part.track_running_stats:
            names += [f"{prefix}.{key}".lstrip(".") for key in ("running_mean", "running_var")]
    return set(names)
