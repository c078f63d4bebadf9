"""Examine a dataset before training; see --help."""

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ..terminal.command import PATH, Command
from ..terminal.command_log import CommandLog, run_logged
from ..terminal.console import LiveLine, print_headline, print_notice, print_path, starting
from ..terminal.size_type import SizeType
from ..terminal.training_steps import print_report

LOG_FILE = "doctor.log"
_EXAMPLES = """
examples:
  rtdetrv2 doctor --data my_dataset
  rtdetrv2 doctor --data my_dataset --size 800x1333 --queries 500

The exit status is 0 if the dataset can be used for training, 1 otherwise.
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@click.option("--data", type=PATH, required=True, help="Dataset folder; its splits are detected.")
@click.option(
    "-o",
    "--output",
    type=PATH,
    default=Path(),
    help="Folder for data_report.json and data_report.html.  [default: current folder]",
)
@click.option(
    "--size",
    "size_hw",
    type=SizeType(),
    metavar="HxW",
    help="Height and width of the training images.  [default: 640x640]",
)
@click.option(
    "--queries",
    "num_queries",
    type=click.IntRange(min=1),
    help="Number of queries of the model.  [default: 300]",
)
@click.option(
    "--detections",
    "num_top_queries",
    type=click.IntRange(min=1),
    help="Detections per image that the model returns (num_top_queries).  [default: 300]",
)
@click.option("--no-cache", is_flag=True, help="Decode every image again.")
@click.option("--workers", type=click.IntRange(min=1), help="Number of threads that decode images.")
def main(*, data: Path, output: Path, no_cache: bool, **options: Any) -> int:
    """Report problems of a dataset and how the trainer handles them."""
    with starting():
        from rtdetrv2_pytorch.src.data.splits import CONVERTED, find_splits
        from rtdetrv2_pytorch.src.doctor import cache
        from rtdetrv2_pytorch.src.doctor.examination import Options
        from rtdetrv2_pytorch.src.misc.resources import cache_folder

        from ..training.examination import examine_folder

    def examine(console: Console, log: CommandLog) -> int:
        splits = find_splits(data, output / CONVERTED)
        log.open_in(output, LOG_FILE, option="--output")
        if splits.note:
            print_notice(console, splits.note)
        given = {name: value for name, value in options.items() if value is not None}
        chosen = Options(**given, cache=None if no_cache else cache_folder(cache.FOLDER))
        name = data.name or str(data)
        with LiveLine(console) as line:
            print_headline(console, "Examining", name)
            report, paths = examine_folder(name, splits, chosen, output, show=line.show)
        print_report(console, report)
        for path in (*paths, output / LOG_FILE):
            print_path(console, path)
        return 1 if report.refusals else 0

    return run_logged(examine)
