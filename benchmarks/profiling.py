"""Profile a training step by sections and by kinds of operators.

    python -m benchmarks.profiling [--models r18 r50] [--batch 16] [--size 640] [--device cpu]

Sections are those in the log of every epoch (solver/stopwatch.py), over whole steps with EMA and
without the profiler; in bfloat16, or in float32 if the device has no bfloat16, as in a training.
Kinds are sums of torch.profiler's self times over one more step: of operators on a CPU, of their
kernels on a GPU.
"""

import argparse
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

from benchmarks.steps import MODELS, our_training, random_batch
from rtdetrv2.analysis.timing import machine, wait
from rtdetrv2_pytorch.src.robustness.precision import has_bfloat16
from rtdetrv2_pytorch.src.solver.stopwatch import shares_of

# Kind -> pattern of operator names; the first match counts.
KINDS = {
    "convolutions, backward": r"convolution_backward",
    "convolutions, forward": r"conv",
    "norms": r"norm",
    "attention": r"attention",
    "matrix products": r"(addmm|bmm|::mm|matmul|linear)",
    "sampling of the deformable attention": r"(grid_sampl|gather|index|scatter|embedding)",
    "optimizer and EMA": r"(_fused_adam|_foreach|adamw)",
    "copies and casts": r"(copy|_to|::to\b|contiguous|clone|cat\b|stack|fill_|zero_)",
    "sums of gradients": r"(::add_?\b|::sum\b)",
    "other products and sums": r"::(mul|sub|rsub|div|addc|lerp|mean|where|masked)",
    "activations": r"(relu|silu|gelu|sigmoid|softmax|threshold|clamp_min_)",
}


def kind_of(operator: str) -> str:
    """Return the kind of an ATen operator by its name."""
    return next((kind for kind, name in KINDS.items() if re.search(name, operator)), "other")


def by_kind(self_times: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return the fraction of time per kind, the largest first.

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
        model: see `steps.MODELS`.
        size: image side in pixels.
        batch: batch size; every image has 8 boxes.
        device: device to run on.
        steps: number of timed steps.
        **sections: configuration overrides.

    Returns:
        precision, seconds (median of a step), sections and kinds (shares of 0..1), operators (the
        ten with the largest share).
    """
    images, targets = random_batch(size, batch, 8)
    precision = "bfloat16" if has_bfloat16(device) else "float32"
    common: dict[str, Any] = {"precision": precision, "device": device}
    state, step = our_training(model, images, targets, **common, **sections)
    step()  # warm-up
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
        "precision": precision,
        "seconds": statistics.median(times),
        "sections": {name: share for name, share in shares.items() if share > 0},
        "kinds": by_kind(spent.items()),
        "operators": {name: spent[name] / whole for name in largest},
    }


def main() -> None:
    """Print a JSON line per model and write a JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    results: dict[str, Any] = {
        "machine": machine(device),
        "batch": arguments.batch,
        "size": arguments.size,
    }
    for model in arguments.models:
        result = profile_step(model, size=arguments.size, batch=arguments.batch, device=device)
        results[model] = result
        print(json.dumps({model: result}))
    file = Path(__file__).parent / "results" / f"{device.type}_profile.json"
    file.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
