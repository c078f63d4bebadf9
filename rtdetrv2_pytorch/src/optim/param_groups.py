"""Parameter groups with their own learning rate or weight decay."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import regex
from torch import nn

_TIMEOUT_S = 0.5  # per pattern: such as (a+)+ backtrack for a time exponential in a name's length


def group_parameters(
    model: nn.Module, rules: Sequence[Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """Sort the trainable parameters into groups by regular expressions on their names.

    Args:
        model: the model to train.
        rules: each with `params`, a regular expression searched in the names, and the options
            that differ for the matching parameters (`lr`, `weight_decay`, ...).

    Returns:
        One group per rule, then one with all remaining parameters, which takes the defaults.

    Raises:
        ValueError: if a rule matches nothing or takes too long, or a parameter is matched twice.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    owner: dict[str, str] = {}
    groups: list[dict[str, Any]] = []
    for rule in rules or ():
        pattern = rule["params"]
        # Frozen norms are buffers: a rule that matches only buffers is valid and has no effect.
        matched = _matching(pattern, {*model.state_dict(), *trainable})
        if not matched:
            raise ValueError(f"{pattern!r} matches the name of no parameter; correct it")
        names = [name for name in trainable if name in matched]
        for name in names:
            if name in owner:
                raise ValueError(
                    f"parameter {name} is matched by {owner[name]!r} and by {pattern!r}; "
                    "make the patterns exclude each other"
                )
            owner[name] = pattern
        groups.append({**rule, "params": [trainable[name] for name in names]})
    remaining = [p for name, p in trainable.items() if name not in owner]
    groups.append({"params": remaining})
    return [group for group in groups if group["params"]]


def _matching(pattern: str, names: Iterable[str]) -> set[str]:
    end_s = time.process_time() + _TIMEOUT_S  # `regex` also counts the time of the process
    matched = set()
    for name in names:
        try:
            if regex.search(pattern, name, timeout=max(0.0, end_s - time.process_time())):
                matched.add(name)
        except TimeoutError as error:
            raise ValueError(
                f"{pattern!r} takes more than {_TIMEOUT_S:g} s on the names of all parameters, "
                f"e.g. {name!r}; avoid nested repetitions such as (a+)+"
            ) from error
    return matched
