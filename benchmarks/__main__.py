"""Run the benchmarks: `python -m benchmarks [subject ...] [--device cpu] [--output FILE]`.

`python -m benchmarks accuracy ...` compares the accuracy of recipes; see its --help.
"""

import argparse
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime
import torch
import torchvision
import transformers
from rich.console import Console
from rich.table import Table

from benchmarks.runtimes import BATCHES, MODELS
from benchmarks.subjects import SUBJECTS
from rtdetrv2.analysis.timing import machine


def main() -> None:
    """Measure, print a table, write the raw results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("subjects", nargs="*", help=f"some of {', '.join(SUBJECTS)}; default: all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, help="JSON file for the raw results")
    parser.add_argument(
        "--models", nargs="+", default=MODELS, help="runtimes: files in configs/rtdetrv2"
    )
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, help="runtimes: images")
    parser.add_argument("--size", type=int, default=640, help="runtimes, serving: side in pixels")
    parser.add_argument("--rounds", type=int, help="runtimes, serving: from 2 (default: 7, 3)")
    args = parser.parse_args()
    unknown = set(args.subjects) - set(SUBJECTS)
    if unknown:
        parser.error(f"unknown subjects {sorted(unknown)}; there are {', '.join(SUBJECTS)}")
    device = torch.device(args.device)
    console = Console()
    facts = {
        **machine(device),  # before the tree changes
        "torchvision": torchvision.__version__,
        "transformers": transformers.__version__,
        "onnxruntime": onnxruntime.__version__,
        "openvino": version("openvino"),
    }
    console.print(facts)

    options: dict[str, dict[str, Any]] = {
        "runtimes": {"models": args.models, "batches": args.batches, "size": args.size},
        "serving": {"size": args.size},
    }
    if args.rounds is not None:
        for chosen in options.values():
            chosen["rounds"] = args.rounds

    results = {}
    for name in args.subjects or SUBJECTS:
        load = os.getloadavg()[0]  # before the measurement
        with console.status(name):
            results[name] = {**SUBJECTS[name](device, **options.get(name, {})), "load": load}
        show(console, results[name])
    # A run of selected subjects does not overwrite the file of all subjects.
    stem = "_".join([device.type, *args.subjects])
    output = args.output or Path(__file__).parent / "results" / f"{stem}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"machine": facts, "results": results}, indent=1) + "\n")
    console.print(f"raw results: {output}")


def show(console: Console, result: dict[str, Any]) -> None:
    """Print one subject."""
    table = Table(title=result["what"], title_justify="left")
    table.add_column("")
    first = next(iter(result["seconds"].values()))
    keys = [key for key in ("min", "median", "p95", "max") if key in first]
    rates = result.get("rates", {})
    for name in (*(f"{key} s" for key in keys), *rates):
        table.add_column(name, justify="right")
    for name, times in result["seconds"].items():
        row = [f"{times[key]:.4f}" for key in keys]
        table.add_row(name, *row, *(f"{values[name]:.2f}" for values in rates.values()))
    console.print(table)
    for name, value in result["ratios"].items():
        lower, upper = result.get("spread", {}).get(name, (None, None))
        rounds = "" if lower is None else f" (quartiles: {lower:.2f} to {upper:.2f})"
        console.print(f"  {name}: [bold]{value:.2f}x[/]{rounds}")
    for name, values in result.get("facts", {}).items():
        console.print(f"  {name}: " + ", ".join(f"{key} {v:.3g}" for key, v in values.items()))
    for name, reason in result.get("not measured", {}).items():
        console.print(f"  {name}: not measured ({reason})", markup=False)


if __name__ == "__main__":
    if sys.argv[1:2] == ["accuracy"]:
        from benchmarks.accuracy.command import main as compare_recipes

        sys.exit(compare_recipes(sys.argv[2:]))
    main()
