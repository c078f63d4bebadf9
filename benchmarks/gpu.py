"""Measure on a GPU: training steps, an epoch with the input pipeline, and inference.

    python -m benchmarks.gpu [--output FILE]            on a machine with a GPU
    python -m benchmarks.gpu --device cpu --tiny        a dry run on a CPU

The run takes less than ten minutes and needs torch, torchvision and the packages of
`make gpu-bundle` (see README.md). Parts that fail are listed with the reason; the
others are still measured.
"""

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.steps import config, our_step, random_batch, their_network, their_step
from rtdetrv2.analysis.timing import machine, wait
from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.deploy.cuda_graphs import GraphedDetector
from rtdetrv2_pytorch.src.deploy.detector import Detector
from rtdetrv2_pytorch.src.misc.text import first_line
from rtdetrv2_pytorch.src.solver.loop import train_one_epoch
from rtdetrv2_pytorch.src.solver.run import TrainingRun
from rtdetrv2_pytorch.src.solver.stopping import StopFlag
from rtdetrv2_pytorch.src.solver.stopwatch import shares_of
from tests.tiny import NETWORK

Result = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """Extent of the measurements."""

    device: torch.device
    models: tuple[str, ...] = ("r18", "r50")
    batches: tuple[int, ...] = (16, 64)
    size: int = 640
    boxes: int = 8
    seconds: float = 6.0  # per measurement
    images: int = 2048  # of the epoch with the input pipeline
    workers: int = 16
    sections: dict[str, Any] = field(default_factory=dict)  # overrides of our network
    changes: dict[str, Any] = field(default_factory=dict)  # overrides of transformers

    @classmethod
    def tiny(cls, device: torch.device) -> "Plan":
        """Return a plan small enough for a CPU."""
        return cls(
            device,
            ("r18",),
            (2,),
            size=64,
            seconds=0.05,
            images=4,
            workers=0,
            sections=NETWORK,
            changes={"num_queries": 12, "num_denoising": 8},
        )


def rate(work: Callable[[], Any], plan: Plan, *, warmup: int = 3) -> dict[str, float]:
    """Repeat for a few seconds; return seconds per call and peak memory in GiB."""
    for _ in range(warmup):
        work()
    wait(plan.device)
    if plan.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(plan.device)
    calls, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < plan.seconds:
        work()
        calls += 1
        if calls % 8 == 0:  # otherwise the host queues more work than fits in memory
            wait(plan.device)
    wait(plan.device)
    result = {"seconds": (time.perf_counter() - begin) / calls, "calls": calls}
    if plan.device.type == "cuda":
        result["peak_gib"] = torch.cuda.max_memory_allocated(plan.device) / 2**30
    return result


@contextlib.contextmanager
def reported(failures: dict[str, str], name: str) -> Iterator[None]:
    """Record a failure and release its memory."""
    try:
        yield
    except (RuntimeError, ImportError, ValueError, OSError) as error:
        failures[name] = f"{type(error).__name__}: {first_line(error)[:300]}"
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def training(plan: Plan, failures: dict[str, str]) -> Result:
    """Measure images/s of training steps in bfloat16, ours and of transformers."""
    results: Result = {}
    for model in plan.models:
        for batch in plan.batches:
            images, targets = random_batch(plan.size, batch, plan.boxes)
            common: dict[str, Any] = {"precision": "bfloat16", "device": plan.device}
            ours = partial(our_step, model, images, targets, **common, **plan.sections)
            for side in ("ours", "ours compiled", "transformers"):
                name = f"{model}, batch {batch}, {side}"
                with reported(failures, name):
                    if side == "transformers":
                        step = their_step(
                            their_network(model, plan.device, **plan.changes),
                            images,
                            targets,
                            **common,
                        )
                    elif side == "ours":
                        step = ours()
                    elif plan.device.type == "cuda":
                        step = ours(compile=True)
                    else:
                        continue  # compiling takes minutes on a CPU
                    result = rate(step, plan)
                    result["images_s"] = batch / result["seconds"]
                    results[name] = result
                    del step
    return results


def whole_run(plan: Plan, failures: dict[str, str]) -> Result:
    """Measure epochs with the input pipeline: images/s, time shares and GPU utilization."""
    results: Result = {}
    with tempfile.TemporaryDirectory() as folder:
        data = make_digits_dataset(Path(folder, "data"), num_train=plan.images, num_val=1)
        for model in plan.models:
            for cache in ("none", "ram"):
                name = f"{model}, batch {plan.batches[0]}, cache {cache}"
                with reported(failures, name):
                    results[name] = _epochs(plan, model, cache, data, Path(folder, "out"))
    return results


def _epochs(plan: Plan, model: str, cache: str, data: Path, output: Path) -> Result:
    split = {
        "img_folder": str(data / "train"),
        "ann_file": str(data / "annotations/instances_train.json"),
    }
    cfg = config(
        model,
        output_dir=str(output),
        eval_spatial_size=[plan.size, plan.size],
        use_amp=True,
        amp_dtype="bfloat16",
        device=str(plan.device),
        cache=cache,
        epoches=3,
        train_dataloader={
            "dataset": split,
            "total_batch_size": plan.batches[0],
            "num_workers": plan.workers,
        },
        **plan.sections,
    )
    run = TrainingRun.create(cfg)

    def epoch(number: int) -> int:
        run.epoch = number
        done = train_one_epoch(run, stop=StopFlag(), after_step=lambda _: None)
        return done.images

    epoch(0)  # starts workers and fills the cache
    wait(plan.device)
    begin = time.perf_counter()
    images = epoch(1)
    shares = shares_of(run.stopwatch.seconds(), 0.0)
    result: Result = {"images_s": images / (time.perf_counter() - begin), "shares": shares}
    if plan.device.type == "cuda":
        with profile(activities=[ProfilerActivity.CUDA]) as watched:
            begin = time.perf_counter()
            epoch(2)
            wait(plan.device)
            wall = time.perf_counter() - begin
        result["gpu_busy"] = busy_seconds(watched) / wall
    return result


def busy_seconds(watched: Any) -> float:
    """Return the time during which at least one kernel or copy ran."""
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in watched.events()
        if event.device_type != torch.autograd.DeviceType.CPU
    )
    busy, reached = 0.0, float("-inf")
    for start, end in spans:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return busy / 1e6


def inference(plan: Plan, failures: dict[str, str]) -> Result:
    """Measure images/s at batch sizes 1 and 32, eager and with CUDA graphs, and transformers."""
    results: Result = {}
    for model in plan.models:
        cfg = config(model, eval_spatial_size=[plan.size, plan.size], **plan.sections)
        detector = Detector(cfg.model, cfg.postprocessor).to(plan.device)
        detector = detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        half = InBfloat16(detector)
        for batch in (1, 32 if plan.device.type == "cuda" else 2):
            pixels = torch.rand(batch, 3, plan.size, plan.size, device=plan.device)
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            sizes = torch.full((batch, 2), plan.size, device=plan.device)
            ways: dict[str, Callable[[], Any]] = {
                "eager float32": partial(detector, pixels, sizes),
                "eager bfloat16": partial(half, pixels, sizes),
            }
            if plan.device.type == "cuda":
                ways["CUDA graph bfloat16"] = partial(GraphedDetector(half), pixels, sizes)
            with reported(failures, f"{model}, transformers"):
                theirs = their_network(model, plan.device, **plan.changes).eval()
                ways["transformers float32"] = partial(theirs, pixel_values=pixels)
            for way, work in ways.items():
                name = f"{model}, batch {batch}, {way}"
                with reported(failures, name), torch.inference_mode():
                    result = rate(work, plan)
                    result["images_s"] = batch / result["seconds"]
                    results[name] = result
    return results


class InBfloat16(nn.Module):
    """A detector under autocast without weight cache, so that CUDA graphs can capture it."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor, sizes_wh: Tensor) -> Any:
        """See `Detector`."""
        with torch.autocast(images.device.type, torch.bfloat16, cache_enabled=False):
            return self.detector(images, sizes_wh)


def targets_met(results: Result) -> dict[str, float]:
    """Return the measured ratios that have a target."""
    train, infer = results.get("training", {}), results.get("inference", {})
    met: dict[str, float] = {}
    for name, ours in train.items():
        theirs = train.get(
            name.replace("ours compiled", "transformers").replace("ours", "transformers")
        )
        if theirs is not None and name.endswith(("ours", "ours compiled")):
            met[f"{name}: images/s against transformers, at least 2"] = (
                ours["images_s"] / theirs["images_s"]
            )
            if "peak_gib" in ours:
                met[f"{name}: memory against transformers, at most 1"] = (
                    ours["peak_gib"] / theirs["peak_gib"]
                )
    for name, graph in infer.items():
        if "batch 1, CUDA graph" in name:
            eager = infer.get(name.replace("CUDA graph", "eager"))
            if eager is not None:
                met[f"{name}: against eager, at least 3"] = eager["seconds"] / graph["seconds"]
    for name, run in results.get("whole run", {}).items():
        if "gpu_busy" in run:
            met[f"{name}: GPU busy, at least 0.9"] = run["gpu_busy"]
    return met


def main() -> None:
    """Measure and write a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a small dry run")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    plan = Plan.tiny(device) if arguments.tiny else Plan(device)
    results = measure(plan)
    text = json.dumps(results, indent=1)
    output = arguments.output or Path(__file__).parent / "results" / f"{device.type}_gpu.json"
    output.write_text(text + "\n")
    print(text)


def measure(plan: Plan) -> Result:
    """Run all measurements."""
    failures: dict[str, str] = {}
    results: Result = {
        "machine": machine(plan.device),
        "training": training(plan, failures),
        "inference": inference(plan, failures),
        "whole run": whole_run(plan, failures),
    }
    return {**results, "targets": targets_met(results), "not measured": failures}


if __name__ == "__main__":
    main()
