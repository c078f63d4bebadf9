"""Run the measurements: `python -m benchmarks [subject ...] [--device cpu] [--output FILE]`."""

import argparse
import datetime
import json
import os
import platform
import subprocess
from pathlib import Path

import torch
import torchvision
import transformers
from rich.console import Console
from rich.table import Table

from benchmarks.subjects import SUBJECTS


def main() -> None:
    """Measure, print a table, write the raw results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("subjects", nargs="*", help=f"some of {', '.join(SUBJECTS)}; default: all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, help="JSON file for the raw results")
    args = parser.parse_args()
    unknown = set(args.subjects) - set(SUBJECTS)
    if unknown:
        parser.error(f"unknown subjects {sorted(unknown)}; there are {', '.join(SUBJECTS)}")
    device = torch.device(args.device)
    console = Console()
    console.print(machine(device))

    results = {}
    for name in args.subjects or SUBJECTS:
        with console.status(name):
            results[name] = SUBJECTS[name](device)
        show(console, results[name])
    output = args.output or Path(__file__).parent / "results" / f"{device.type}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"machine": machine(device), "results": results}, indent=1) + "\n")
    console.print(f"raw results: {output}")


def machine(device: torch.device) -> dict[str, str]:
    """What the numbers depend on."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    cpu = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu,
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "transformers": transformers.__version__,
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def show(console: Console, result: dict) -> None:
    """Print one subject."""
    table = Table(title=result["what"], title_justify="left")
    table.add_column("")
    for name in ("min s", "median s", "max s"):
        table.add_column(name, justify="right")
    for name, times in result["seconds"].items():
        table.add_row(name, *(f"{times[k]:.4f}" for k in ("min", "median", "max")))
    console.print(table)
    for name, value in result["ratios"].items():
        console.print(f"  {name}: [bold]{value:.2f}x[/]")


if __name__ == "__main__":
    main()
