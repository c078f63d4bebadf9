"""Where the time of a training step goes, by sections of the step and by kinds of operators.

    python -m benchmarks.profiling [--models r18 r50] [--batch 16] [--size 640] [--device cpu]

Sections are those of every epoch's log (solver/stopwatch.py), over whole steps in bfloat16 with the
moving average, without the profiler. Kinds are sums of torch.profiler's self times over one more
step: of operators on a CPU, of the kernels that they start on a GPU.
"""

import json
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.floors import measured_rates, parse_step, training_work
from benchmarks.steps import our_training, random_batch
from benchmarks.timing import machine, wait
from rtdetrv2_pytorch.src.solver.stopwatch import shares_of

# The first that fits names the kind of an operator.
KINDS = {
    "convolutions, backward": r"convolution_backward",
    "convolutions, forward": r"conv",
    "norms": r"norm",
    "attention": r"attention",
    "matrix products": r"(addmm|bmm|::mm|matmul|linear)",
    "sampling of the deformable attention": r"(grid_sampl|gather|index|scatter|embedding)",
    "optimizer and moving average": r"(_fused_adam|_foreach|adamw)",
    "copies and casts": r"(copy|_to|::to\b|contiguous|clone|cat\b|stack|fill_|zero_)",
    "sums of gradients": r"(::add_?\b|::sum\b)",
    "other products and sums": r"::(mul|sub|rsub|div|addc|lerp|mean|where|masked)",
    "activations": r"(relu|silu|gelu|sigmoid|softmax|threshold|clamp_min_)",
}


def kind_of(operator: str) -> str:
    """The kind of an operator of ATen, by its name."""
    return next((kind for kind, name in KINDS.items() if re.search(name, operator)), "other")


def by_kind(self_times: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Shares of kinds, the largest first.

    Args:
        self_times: (operator, time in any unit).
    """
    sums: Counter[str] = Counter()
    for operator, spent in self_times:
        sums[kind_of(operator)] += spent  # type: ignore[assignment]
    whole = sum(sums.values())
    return {kind: spent / whole for kind, spent in sums.most_common()}


def profile_step(
    model: str, *, size: int, batch: int, device: torch.device, steps: int = 3, **sections: Any
) -> dict[str, Any]:
    """Time steps, then profile one.

    Args:
        model: of `steps.MODELS`.
        size: side of the images.
        batch: images, with 8 boxes each.
        device: where to compute.
        steps: how many are timed.
        **sections: more of the configuration.

    Returns:
        seconds (median of a step), sections and kinds (shares of 0..1), operators (the ten with
        the largest share).
    """
    images, targets = random_batch(size, batch, 8)
    common: dict[str, Any] = {"precision": "bfloat16", "device": device}
    state, step = our_training(model, images, targets, **common, **sections)
    step()  # makes the moments, chooses algorithms
    times = []
    state.stopwatch.start()
    for _ in range(steps):
        begin = time.perf_counter()
        step()
        wait(device)
        times.append(time.perf_counter() - begin)
    shares = shares_of(state.stopwatch.seconds(), 0.0)
    is_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    with profile(activities=activities, acc_events=True) as watched:
        step()
        wait(device)
    attribute = "self_device_time_total" if is_cuda else "self_cpu_time_total"
    spent = {
        row.key: getattr(row, attribute)
        for row in watched.key_averages()
        if row.key.startswith("aten::")
    }
    whole = sum(spent.values())
    largest = sorted(spent, key=lambda name: -spent[name])[:10]
    return {
        "seconds": statistics.median(times),
        "sections": {name: share for name, share in shares.items() if share > 0},
        "kinds": by_kind(spent.items()),
        "operators": {name: spent[name] / whole for name in largest},
    }


def main() -> None:
    """Print a JSON line for each model, and write all of it."""
    arguments = parse_step(__doc__)
    device = torch.device(arguments.device)
    rates = measured_rates(device)
    results: dict[str, Any] = {
        "machine": machine(device),
        "batch": arguments.batch,
        "size": arguments.size,
    }
    for model in arguments.models:
        work = training_work(model, size=arguments.size, batch=arguments.batch)
        result = profile_step(model, size=arguments.size, batch=arguments.batch, device=device)
        result["floor_seconds"] = max(work.seconds(rates))
        result["times_its_floor"] = result["seconds"] / result["floor_seconds"]
        results[model] = result
        print(json.dumps({model: result}))
    file = Path(__file__).parent / "results" / f"{device.type}_profile.json"
    file.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
