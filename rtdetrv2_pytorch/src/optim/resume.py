"""Restore optimizer and schedule of a resumed run.

A checkpoint restores the state: moments, step counts and positions. All settings (learning rate,
betas, weight decay, schedule, fused or not) are those of this run.
"""

import math
import warnings
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

# By the option that only they have: optimizers whose states differ.
_FAMILIES = {"betas": "Adam or AdamW", "momentum": "SGD"}


def restore_optimizer(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """Restore the state of each parameter and keep the options of each group.

    torch would restore the options, too, and with them the implementation: the state of a fused
    optimizer differs from that of others, and only fused ones work with the loss scaler's flags.

    Args:
        optimizer: the optimizer of this run.
        saved: `state_dict()` of the saved optimizer.

    Raises:
        ValueError: if the saved optimizer has another type or other parameter groups.
    """
    groups, own = saved["param_groups"], optimizer.param_groups
    if _family(groups[0]) != _family(own[0]):
        raise ValueError(
            f"its optimizer is {_family(groups[0])}, here it is {type(optimizer).__name__}"
        )
    theirs, ours = ([len(group["params"]) for group in side] for side in (groups, own))
    if theirs != ours:
        raise ValueError(f"its parameter groups have sizes {theirs}, those here {ours}")
    if any(group.get("amsgrad") for group in own) and not all(
        "max_exp_avg_sq" in entry for entry in saved["state"].values()
    ):
        raise ValueError("it was trained without optimizer.amsgrad, which is set here")
    options = optimizer.state_dict()["param_groups"]
    merged = [
        {**option, "params": group["params"]} for option, group in zip(options, groups, strict=True)
    ]
    optimizer.load_state_dict({"state": saved["state"], "param_groups": merged})


def _family(group: Mapping[str, Any]) -> str:
    return next((name for key, name in _FAMILIES.items() if key in group), "of an unknown type")


def resume_schedule(
    scheduler: LRScheduler, state: Mapping[str, Any] | None, *, epoch: int
) -> list[float]:
    """Move a schedule to the position of a saved one, as if it had run from the start.

    Args:
        scheduler: the new schedule of this run.
        state: state of the saved schedule, which may have another type, length or learning rate.
        epoch: finished epochs, the position if there is no state.

    Returns:
        The learning rate per group of the next epoch: exactly the saved ones if the schedule did
        not change, for steps accumulate rounding.
    """
    state = state or {}
    position = int(state.get("last_epoch", epoch))
    if isinstance(scheduler, OneCycleLR):  # has no learning rate after its end
        position = min(position, scheduler.total_steps - 1)
    moved = {"last_epoch": position, "_step_count": position + 1}
    scheduler.load_state_dict({**scheduler.state_dict(), **moved})
    closed_form = getattr(scheduler, "_get_closed_form_lr", scheduler.get_lr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # raised outside of step()
        rates = [float(rate) for rate in closed_form()]
    saved = [float(rate) for rate in state.get("_last_lr", ())]
    is_same = len(saved) == len(rates) and all(
        math.isclose(rate, old, rel_tol=1e-6, abs_tol=1e-12)
        for rate, old in zip(rates, saved, strict=True)
    )
    rates = saved if is_same else rates
    scheduler.load_state_dict({**scheduler.state_dict(), "_last_lr": rates})
    return rates
