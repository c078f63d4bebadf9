"""Measure the speed of a model in all runtimes; see --help."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from rtdetrv2_pytorch.src.misc.text import counted

from ..terminal.command import PATH, Command, ListOption
from ..terminal.command_log import CommandLog, run_logged
from ..terminal.console import (
    LiveLine,
    print_detail,
    print_headline,
    print_notice,
    print_path,
    result_table,
    starting,
)

if TYPE_CHECKING:
    from ..analysis.speed import SpeedReport

_BUSY_CORES = 0.2  # of other processes, above which the times are upper bounds
_EXAMPLES = """
examples:
  rtdetrv2 benchmark output/my/best.pth
  rtdetrv2 benchmark output/my/best.onnx --batch-sizes 1 8 32 --json speed.json
  rtdetrv2 benchmark output/my --device cuda --compile

MODEL is a checkpoint (.pth), an export (.onnx, .engine) or the output folder of a training. A
checkpoint is also exported to a temporary ONNX file. The runtimes take turns; a call is from uint8
pixels to boxes, without reading and resizing images.
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@click.argument("model", type=PATH)
@click.option(
    "--batch-sizes",
    cls=ListOption,
    type=click.IntRange(min=1),
    default=(1, 4),
    metavar="N...",
    help="Images per call.  [default: 1 4]",
)
@click.option("-d", "--device", help="cuda, cuda:1 or cpu.  [default: a GPU if available]")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all cores]")
@click.option(
    "--rounds", type=click.IntRange(min=1), default=10, show_default=True, help="Timed calls."
)
@click.option("--compile", "compiled", is_flag=True, help="Measure torch.compile, too (minutes).")
@click.option("-c", "--config", type=PATH, help="YAML file, for a checkpoint without one.")
@click.option(
    "--classes", help="Names a,b,c in label order, for a checkpoint that does not contain them."
)
@click.option("--json", "json_file", type=PATH, help="Write all times and the machine to a file.")
def main(
    *,
    model: Path,
    batch_sizes: Sequence[int],
    device: str | None,
    threads: int | None,
    rounds: int,
    compiled: bool,
    config: Path | None,
    classes: str | None,
    json_file: Path | None,
) -> int:
    """Measure latency and throughput of MODEL in all runtimes of this machine."""
    with starting():
        import torch

        from ..analysis.results import save_json
        from ..analysis.speed import benchmark

    def body(console: Console, log: CommandLog) -> int:
        del log
        if threads is not None:
            torch.set_num_threads(threads)
        print_headline(console, "Measuring", str(model))
        with LiveLine(console) as line:
            report = benchmark(
                model,
                batch_sizes=batch_sizes,
                device=device,
                rounds=rounds,
                compiled=compiled,
                config=config,
                class_names=[each.strip() for each in classes.split(",")] if classes else None,
                on_progress=lambda what, done, total: line.show(what, done, total or None),
            )
        _show(report, console)
        if json_file is not None:
            save_json(json_file, report.as_dict(), option="--json")
            print_path(console, json_file)
        return 0

    return run_logged(body)


def _show(report: "SpeedReport", console: Console) -> None:
    machine, (height, width) = report.machine, report.input_size_hw
    print_detail(
        console,
        f"{machine['device']}, {counted(int(machine['cores']), 'core')}, "
        f"{counted(int(machine['threads']), 'thread')}, torch "
        f"{machine['torch']}, {height}x{width} pixels (height x width)",
    )
    table = result_table(console, "")
    table.add_column("runtime")
    for name in ("batch", "ms, median", "quartiles", "images/s"):
        table.add_column(name, justify="right")
    for speed in report.speeds:
        lower, upper = speed.quartiles_ms
        table.add_row(
            speed.runtime,
            str(speed.batch_size),
            f"{speed.median_ms:.1f}",
            f"{lower:.1f} - {upper:.1f}",
            f"{speed.images_per_s:.1f}",
        )
    console.print(table)
    for name, reason in report.not_measured.items():
        print_detail(console, f"{name}: not measured, {reason}")
    if report.other_processes_cores > _BUSY_CORES:
        print_notice(
            console,
            f"Other processes used {report.other_processes_cores:.1f} cores; the times are upper "
            "bounds",
        )
