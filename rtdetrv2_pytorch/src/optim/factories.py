"""Optimizers, schedules and the scaler as YAML names them: typed functions around torch's own.

The signatures are the schema that a configuration is checked against.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer, lr_scheduler

from ..misc.ranges import Decay, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt

Params = Iterable[Any]

# Where a schedule stands, of all that it saves; the rest describes its course.
_PLACE = ("last_epoch", "_step_count", "_last_lr", "base_lrs")


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
    """AdamW, arXiv:1711.05101; fused into few kernels unless told otherwise."""
    return torch.optim.AdamW(
        params,
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        amsgrad=amsgrad,
        maximize=maximize,
        foreach=foreach,
        capturable=capturable,
        differentiable=differentiable,
        fused=_prefer_fused(fused, foreach, differentiable),
    )


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
    return torch.optim.Adam(
        params,
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        amsgrad=amsgrad,
        foreach=foreach,
        maximize=maximize,
        capturable=capturable,
        differentiable=differentiable,
        fused=_prefer_fused(fused, foreach, differentiable),
        decoupled_weight_decay=decoupled_weight_decay,
    )


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
    return torch.optim.SGD(
        params,
        lr=lr,
        momentum=momentum,
        dampening=dampening,
        weight_decay=weight_decay,
        nesterov=nesterov,
        maximize=maximize,
        foreach=foreach,
        differentiable=differentiable,
        fused=_prefer_fused(fused, foreach, differentiable),
    )


def _prefer_fused(fused: bool | None, foreach: bool | None, differentiable: bool) -> bool | None:
    """Fused where nothing speaks against it: one kernel instead of one per parameter."""
    if fused is None and not foreach and not differentiable:
        return True
    return fused


def multi_step_lr(
    optimizer: Optimizer,
    *,
    milestones: list[PositiveInt],
    gamma: PositiveFloat = 0.1,
    last_epoch: int = -1,
) -> lr_scheduler.LRScheduler:
    """Multiply the rate by `gamma` at each of these epochs."""
    return lr_scheduler.MultiStepLR(optimizer, milestones, gamma, last_epoch)


def cosine_annealing_lr(
    optimizer: Optimizer,
    *,
    epochs: int,
    T_max: PositiveInt | None = None,  # noqa: N803 (a YAML key)
    eta_min: NonNegativeFloat = 0.0,
    last_epoch: int = -1,
) -> lr_scheduler.LRScheduler:
    """Half a cosine from the rate to `eta_min`, over `T_max` epochs (default: the whole run)."""
    return lr_scheduler.CosineAnnealingLR(optimizer, T_max or epochs, eta_min, last_epoch)


def flat_cosine_lr(
    optimizer: Optimizer,
    *,
    epochs: int,
    flat_fraction: Fraction = 0.5,
    min_fraction: Fraction = 0.05,
    last_epoch: int = -1,
) -> lr_scheduler.LRScheduler:
    """Keep the rate for a share of the run, then half a cosine down to a share of the rate.

    Args:
        optimizer: the optimizer to schedule.
        epochs: length of the run.
        flat_fraction: share of the epochs before the descent, 0..1.
        min_fraction: rate in the last epoch, as a share of the first.
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
    """Rise to `max_lr` and fall far below it, arXiv:1708.07120; one step per epoch.

    One `max_lr` is the peak of the group with the highest rate; the other groups keep their
    ratio to it, so that a slower backbone stays slower. Without `total_steps` the cycle is as
    long as the run.
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
    """Multiply the rate by a function of the epoch; from Python only, YAML has no functions."""
    return lr_scheduler.LambdaLR(optimizer, lr_lambda, last_epoch)


def resume_schedule(
    scheduler: lr_scheduler.LRScheduler, state: Mapping[str, Any]
) -> list[float] | None:
    """Go on from a saved state, on the course that the present configuration describes.

    A run that is resumed to become longer has another course than the one that was saved: torch
    would take over the old length, after which a cosine rises again and one cycle ends in an
    error.

    Args:
        scheduler: of this run, new.
        state: of the saved one, which may be of another type.

    Returns:
        The rates of the coming epoch if they differ from the saved ones; None where they do not,
        and the optimizer's own are right to the last bit.
    """
    place = {key: state[key] for key in _PLACE if key in state}
    scheduler.load_state_dict({**scheduler.state_dict(), **place})
    closed_form = getattr(scheduler, "_get_closed_form_lr", scheduler.get_lr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it wants to be asked inside step()
        rates = [float(rate) for rate in closed_form()]
    saved = place.get("_last_lr", rates)
    is_same = len(saved) == len(rates) and all(
        math.isclose(rate, old, rel_tol=1e-6, abs_tol=1e-12)
        for rate, old in zip(rates, saved, strict=True)
    )
    return None if is_same else rates


def grad_scaler(
    *,
    device_type: str = "cuda",
    init_scale: float = 65536.0,
    growth_factor: float = 2.0,
    backoff_factor: float = 0.5,
    growth_interval: int = 2000,
    enabled: bool = True,
) -> GradScaler:
    """Scale the loss so that float16 gradients neither vanish nor overflow."""
    return GradScaler(
        device_type,
        init_scale=init_scale,
        growth_factor=growth_factor,
        backoff_factor=backoff_factor,
        growth_interval=growth_interval,
        enabled=enabled,
    )
