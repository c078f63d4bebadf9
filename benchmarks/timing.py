"""Timing two or more ways of doing one thing in turn, so that a drifting machine hits all alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch


def take_turns(
    ways: Mapping[str, Callable[[], Any]], *, rounds: int = 7, warmup: int = 2
) -> dict[str, dict[str, float]]:
    """Time each way once per round.

    Args:
        ways: name -> what to time.
        rounds: counted rounds.
        warmup: rounds before that.

    Returns:
        Per name the minimum, median and maximum in seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warmup + rounds):
        for name, way in ways.items():
            _wait()
            begin = time.perf_counter()
            way()
            _wait()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - begin)
    return {
        name: {"min": min(s), "median": statistics.median(s), "max": max(s)}
        for name, s in seconds.items()
    }


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(results: Mapping[str, Mapping[str, float]], yardstick: str, ours: str) -> float:
    """How many times faster ours is, by medians."""
    return results[yardstick]["median"] / results[ours]["median"]
