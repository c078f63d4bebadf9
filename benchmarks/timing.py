"""Timing two or more ways of doing one thing in turn, so that a drifting machine hits all alike."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
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
    samples = every_turn(ways, rounds=rounds, warmup=warmup)
    return {name: summary(seconds) for name, seconds in samples.items()}


def every_turn(
    ways: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 7,
    warmup: int = 2,
    pause_s: float = 0,
) -> dict[str, list[float]]:
    """The same with the seconds of every counted round, in order.

    The threads of some libraries go on spinning for a moment after their work: `pause_s` lets
    them end, so that they do not take the cores of the next way.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warmup + rounds):
        for name, way in ways.items():
            time.sleep(pause_s)
            _wait()
            begin = time.perf_counter()
            way()
            _wait()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    return {"min": min(seconds), "median": statistics.median(seconds), "max": max(seconds)}


def ratio(results: Mapping[str, Mapping[str, float]], yardstick: str, ours: str) -> float:
    """How many times faster ours is, by medians."""
    return results[yardstick]["median"] / results[ours]["median"]


def spread(yardstick: Sequence[float], ours: Sequence[float]) -> list[float]:
    """Lower and upper quartile of how many times faster ours was in each round by itself."""
    ratios = [theirs / own for theirs, own in zip(yardstick, ours, strict=True)]
    lower, _, upper = statistics.quantiles(ratios, n=4, method="inclusive")
    return [lower, upper]


class Neighbours:
    """How many cores other programs took meanwhile: they make absolute times unreliable.

    As a context manager, again and again; what children of this process do belongs to it, once
    they have ended.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._busy = 0.0

    def __enter__(self) -> "Neighbours":
        self._begin = time.monotonic(), _machine_s() - _own_s()
        return self

    def __exit__(self, *error: object) -> None:
        self._seconds += time.monotonic() - self._begin[0]
        self._busy += _machine_s() - _own_s() - self._begin[1]

    def cores(self) -> float:
        """Cores, on average; 0 where the machine does not tell."""
        return max(0.0, self._busy / self._seconds) if self._seconds else 0.0


def _machine_s() -> float:
    """Seconds of all cores together in which they were not idle, since the machine started."""
    path = Path("/proc/stat")
    if not path.is_file():
        return _own_s()
    first = path.read_text().split("\n")[0]
    user, nice, system, _idle, _iowait, *others = map(int, first.split()[1:])
    irq, softirq, steal = others[:3]  # the guests that follow are part of user
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    return sum(os.times()[:4])
