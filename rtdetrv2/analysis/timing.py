"""Time alternatives alternately, so that machine load affects all of them equally."""

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

from rtdetrv2_pytorch.src.robustness.precision import has_bfloat16


def take_turns(
    ways: Mapping[str, Callable[[], Any]],
    device: torch.device,
    *,
    rounds: int = 7,
    warmup: int = 2,
) -> dict[str, dict[str, float]]:
    """Time each function once per round.

    Args:
        ways: name -> function.
        device: device they use.
        rounds: timed rounds.
        warmup: rounds before the timed ones.

    Returns:
        Minimum, median and maximum in seconds by name.
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
    clock: Callable[[], float] = time.perf_counter,
    on_call: Callable[[int, int], None] | None = None,
) -> dict[str, list[float]]:
    """Like `take_turns`, but return the seconds of every timed round.

    `pause_s` lets threads of a library that spin after their work end before the next function.
    `clock` is `time.process_time` for CPU time.
    `on_call` is called before each function with the number of calls done and of all calls.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warmup + rounds):
        for place, (name, way) in enumerate(ways.items()):
            if on_call is not None:
                on_call(turn * len(ways) + place, (warmup + rounds) * len(ways))
            time.sleep(pause_s)
            wait(device)
            begin = clock()
            way()
            wait(device)
            if turn >= warmup:
                seconds[name].append(clock() - begin)
    return seconds


def wait(device: torch.device) -> None:
    """Synchronize with the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Return minimum, median and maximum."""
    return {"min": min(seconds), "median": statistics.median(seconds), "max": max(seconds)}


def ratio(results: Mapping[str, Mapping[str, float]], baseline: str, ours: str) -> float:
    """Return the speedup of `ours` by medians."""
    return results[baseline]["median"] / results[ours]["median"]


def spread(baseline: Sequence[float], ours: Sequence[float]) -> list[float]:
    """Return the lower and upper quartile of the speedup per round."""
    ratios = [theirs / own for theirs, own in zip(baseline, ours, strict=True)]
    lower, _, upper = statistics.quantiles(ratios, n=4, method="inclusive")
    return [lower, upper]


class OtherProcesses:
    """Measure how many cores other processes use, inside `with` blocks.

    Time of ended child processes counts as time of this process.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._busy = 0.0

    def __enter__(self) -> "OtherProcesses":
        self._begin = time.monotonic(), _machine_s() - _own_s()
        return self

    def __exit__(self, *error: object) -> None:
        self._seconds += time.monotonic() - self._begin[0]
        self._busy += _machine_s() - _own_s() - self._begin[1]

    def cores(self) -> float:
        """Return the average number of cores; 0 if unknown."""
        return max(0.0, self._busy / self._seconds) if self._seconds else 0.0


def _machine_s() -> float:
    """Return the busy seconds of all cores since boot."""
    path = Path("/proc/stat")
    if not path.is_file():
        return _own_s()
    first = path.read_text().split("\n")[0]
    user, nice, system, _idle, _iowait, *others = map(int, first.split()[1:])
    irq, softirq, steal = others[:3]  # guest times are part of user
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    return sum(os.times()[:4])


def machine(device: torch.device) -> dict[str, str]:
    """Describe the machine and versions."""
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
    """Return the commit; "" without git or repository."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return found.stdout.strip()


def _processor() -> str:
    """Return the name of the CPU, and the vector instructions that torch uses on it.

    Virtual machines can have the same name for processors of very different speed.
    """
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    name = next(names, platform.processor())
    instructions = torch.backends.cpu.get_cpu_capability()
    bfloat16 = ", bfloat16" if has_bfloat16(torch.device("cpu")) else ""
    return f"{name} ({instructions}{bfloat16})"
