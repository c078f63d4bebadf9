"""Optimizers, schedules and the gradient scaler: typed functions around torch's classes.

Configurations are validated against their signatures.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer, lr_scheduler

from ..misc.ranges import Decay, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt

Params = Iterable[Any]


def adamw(
    params: Params,
    *,
    lr: PositiveFloat = 1e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegativeFloat = 1e-8,
    weight_decay: NonNegativeFloat = 1e-2,
    amsgrad: bool = False,
    maximize: bool = False,
    foreach: bool | None = None,
    capturable: bool = False,
    differentiable: bool = False,
    fused: bool | None = None,
) -> Optimizer:
    """AdamW, arXiv:1711.05101; fused by default."""
    return torch.optim.AdamW(**_prefer_fused(locals()))


def adam(
    params: Params,
    *,
    lr: PositiveFloat = 1e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegativeFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
    amsgrad: bool = False,
    foreach: bool | None = None,
    maximize: bool = False,
    capturable: bool = False,
    differentiable: bool = False,
    fused: bool | None = None,
    decoupled_weight_decay: bool = False,
) -> Optimizer:
    """Adam, arXiv:1412.6980."""
    return torch.optim.Adam(**_prefer_fused(locals()))


def sgd(
    params: Params,
    *,
    lr: PositiveFloat = 1e-3,
    momentum: Decay = 0.0,
    dampening: float = 0.0,
    weight_decay: NonNegativeFloat = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
    foreach: bool | None = None,
    differentiable: bool = False,
    fused: bool | None = None,
) -> Optimizer:
    """Stochastic gradient descent with momentum."""
    return torch.optim.SGD(**_prefer_fused(locals()))


def _prefer_fused(options: Mapping[str, Any]) -> dict[str, Any]:
    """Select the fused implementation unless an option excludes it."""
    is_free = options["fused"] is None and not options["foreach"] and not options["differentiable"]
    return {**options, "fused": True} if is_free else dict(options)


def multi_step_lr(
    optimizer: Optimizer,
    *,
    milestones: list[PositiveInt],
    gamma: PositiveFloat = 0.1,
    last_epoch: int = -1,
) -> lr_scheduler.LRScheduler:
    """Multiply the learning rate by `gamma` at each milestone."""
    return lr_scheduler.MultiStepLR(optimizer, milestones, gamma, last_epoch)


def cosine_annealing_lr(
    optimizer: Optimizer,
    *,
    epochs: int,
    T_max: PositiveInt | None = None,  # noqa: N803 (a YAML key)
    eta_min: NonNegativeFloat = 0.0,
    last_epoch: int = -1,
) -> lr_scheduler.LRScheduler:
    """Cosine decay of the learning rate to `eta_min` over `T_max` epochs (default: whole run)."""
    return lr_scheduler.CosineAnnealingLR(optimizer, T_max or epochs, eta_min, last_epoch)


def flat_cosine_lr(
    optimizer: Optimizer,
    *,
    epochs: int,
    flat_fraction: Fraction = 0.5,
    min_fraction: Fraction = 0.05,
    last_epoch: int = -1,
) -> lr_scheduler.LRScheduler:
    """Keep the learning rate constant for a fraction of the run, then apply a cosine decay.

    Args:
        optimizer: the optimizer to schedule.
        epochs: length of the run.
        flat_fraction: fraction of the epochs before the decay, 0..1.
        min_fraction: learning rate of the last epoch as a fraction of the first.
        last_epoch: the epoch just finished; -1 before the first.
    """
    flat = round(epochs * flat_fraction)
    descent = max(1, epochs - 1 - flat)

    def factor(epoch: int) -> float:
        progress = min(max(epoch - flat, 0) / descent, 1.0)
        return min_fraction + (1 - min_fraction) * 0.5 * (1 + math.cos(math.pi * progress))

    return lr_scheduler.LambdaLR(optimizer, factor, last_epoch)


def one_cycle_lr(
    optimizer: Optimizer,
    *,
    epochs: int | None = None,
    max_lr: PositiveFloat | list[PositiveFloat],
    total_steps: int | None = None,
    steps_per_epoch: int | None = None,
    pct_start: Fraction = 0.3,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    cycle_momentum: bool = True,
    base_momentum: float = 0.85,
    max_momentum: float = 0.95,
    div_factor: PositiveFloat = 25.0,
    final_div_factor: PositiveFloat = 1e4,
    three_phase: bool = False,
    last_epoch: int = -1,
) -> lr_scheduler.LRScheduler:
    """Increase to `max_lr`, then decrease far below it, arXiv:1708.07120; one step per epoch.

    A scalar `max_lr` is the peak of the group with the highest learning rate. Other groups keep
    their ratio to it, so that the backbone stays slower. Without `total_steps`, the cycle covers
    the whole run.
    """
    groups = optimizer.param_groups
    if isinstance(max_lr, int | float):
        highest = max(group["lr"] for group in groups)
        max_lr = [max_lr * group["lr"] / highest for group in groups]
    return lr_scheduler.OneCycleLR(
        optimizer,
        max_lr,
        total_steps=total_steps or (epochs if steps_per_epoch is None else None),
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        pct_start=pct_start,
        anneal_strategy=anneal_strategy,
        cycle_momentum=cycle_momentum,
        base_momentum=base_momentum,
        max_momentum=max_momentum,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
        three_phase=three_phase,
        last_epoch=last_epoch,
    )


def lambda_lr(
    optimizer: Optimizer, *, lr_lambda: Callable[[int], float], last_epoch: int = -1
) -> lr_scheduler.LRScheduler:
    """Multiply the learning rate by a function of the epoch; only available from Python."""
    return lr_scheduler.LambdaLR(optimizer, lr_lambda, last_epoch)


class LossScaler(GradScaler):
    """Scale the loss so that float16 gradients neither vanish nor overflow."""
