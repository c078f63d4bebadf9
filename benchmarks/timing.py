"""Timing two or more ways of doing one thing in turn, so that a drifting machine hits all alike."""

import datetime
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch


def take_turns(
    ways: Mapping[str, Callable[[], Any]],
    device: torch.device,
    *,
    rounds: int = 7,
    warmup: int = 2,
) -> dict[str, dict[str, float]]:
    """Time each way once per round.

    Args:
        ways: name -> what to time.
        device: where they run.
        rounds: counted rounds.
        warmup: rounds before that.

    Returns:
        Per name the minimum, median and maximum in seconds.
    """
    samples = every_turn(ways, device, rounds=rounds, warmup=warmup)
    return {name: summary(seconds) for name, seconds in samples.items()}


def every_turn(
    ways: Mapping[str, Callable[[], Any]],
    device: torch.device,
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
            wait(device)
            begin = time.perf_counter()
            way()
            wait(device)
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def wait(device: torch.device) -> None:
    """Until the device has done what is queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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


def machine(device: torch.device) -> dict[str, str]:
    """What the numbers depend on."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
    }


def commit() -> str:
    """What was measured; "" on a machine without git, or in a copy without its history."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return found.stdout.strip()


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
