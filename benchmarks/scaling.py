"""Measure the numbers of docs/scaling.md: `python -m benchmarks.scaling [--images FOLDER]`.

Bytes and FLOP hold on any machine; times are those of this machine over its loopback device.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.steps import MODELS, config
from rtdetrv2.analysis.timing import summary
from rtdetrv2_pytorch.src.data.images.decoding import read_rgb

SIDE = 640
ROUNDS = 7


def model_figures(name: str) -> dict[str, float]:
    """Return the bytes exchanged per step and the FLOP per image of a model of `MODELS`."""
    model = config(name).model.train()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    target = {"labels": torch.zeros(7, dtype=torch.int64), "boxes": torch.rand(7, 4) / 2}
    with FlopCounterMode(display=False) as counter:
        outputs = model(torch.rand(2, 3, SIDE, SIDE), targets=[target, target])
        (outputs["pred_logits"].sum() + outputs["pred_boxes"].sum()).backward()
    return {
        "trained_parameters": trained,
        "gradient_bytes": 4 * trained,
        "sync_bn_layers": len(norms),
        "sync_bn_values": sum(m.num_features for m in norms),
        "step_flops_per_image": counter.get_total_flops() / 2,
    }


def decoding(folder: Path) -> dict[str, float]:
    """Return the images/s that one process decodes from the page cache."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".jpeg"))[:100]
    for path in files[:20]:
        read_rgb(path)
    begin = time.perf_counter()
    pixels = sum(read_rgb(path).size // 3 for path in files)
    seconds = time.perf_counter() - begin
    return {
        "images": len(files),
        "bytes_per_image": sum(path.stat().st_size for path in files) / len(files),
        "megapixels_per_image": pixels / len(files) / 1e6,
        "images_per_s": len(files) / seconds,
    }


def _timed(work: Callable[[], Any]) -> list[float]:
    seconds = []
    for turn in range(ROUNDS + 2):
        dist.barrier()
        begin = time.perf_counter()
        work()
        if turn >= 2:
            seconds.append(time.perf_counter() - begin)
    return seconds


def _rank(rank: int, ranks: int, store: str, sizes: dict[str, int], output: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    results = {}
    for name, size in sizes.items():
        values = torch.zeros(size // 4)
        results[f"all_reduce {name}"] = summary(_timed(partial(dist.all_reduce, values)))
    numbers = torch.zeros(2, dtype=torch.int64)
    parts = [torch.zeros_like(numbers) for _ in range(ranks)]
    results["gather of two numbers"] = summary(_timed(lambda: dist.all_gather(parts, numbers)))
    if rank == 0:
        Path(output).write_text(json.dumps(results))
    dist.destroy_process_group()


def exchanges(ranks: int, sizes: dict[str, int]) -> dict[str, Any]:
    """Return the durations of gloo collectives over the loopback device."""
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder, "results"))
        context = multiprocessing.get_context("spawn")
        processes = [
            context.Process(target=_rank, args=(r, ranks, f"{folder}/store", sizes, output))
            for r in range(ranks)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        results: dict[str, Any] = json.loads(Path(output).read_text())
        return results


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of JPEG files to decode")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    models = {name: model_figures(name) for name in MODELS}
    sizes = {name: int(figures["gradient_bytes"]) for name, figures in models.items()}
    results = {
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "models": models,
        "two ranks": exchanges(2, sizes),
        "decoding": decoding(args.images) if args.images else None,
    }
    text = json.dumps(results, indent=1)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
