"""What the data doctor's command line does; `doctor` has its options."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from ..src.data.finding_kinds import Severity
from ..src.data.splits import Splits, find_splits
from ..src.doctor.cache import default_folder
from ..src.doctor.data_report import DataReport
from ..src.doctor.examination import Options, SplitFiles, examine
from ..src.doctor.page import write_page
from ..src.misc.errors import ConfigError
from .command import run_command
from .command_log import CommandLog
from .console import LiveLine, print_headline, print_notice, print_path, result_table

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
LOG_FILE = "doctor.log"


def print_report(console: Console, report: DataReport) -> None:
    """Print counts, and a line per kind of finding."""
    counts = result_table(console, "Counts")
    counts.add_column("split")
    for name in ("images", "used", "skipped", "boxes", "used", "clipped", "skipped"):
        counts.add_column(name, justify="right")
    for split in report.splits:
        images, boxes = split.images, split.boxes
        numbers = [images.given, images.used, images.skipped]
        numbers += [boxes.given, boxes.used, split.clipped, boxes.skipped]
        counts.add_row(split.name, *map(str, numbers))
    console.print(counts)
    if not console.is_terminal:
        for line in report.lines():
            console.print(escape(line))
        return
    groups = report.groups()
    if groups:
        table = result_table(console, "Findings")
        table.show_lines = True
        table.add_column("trainer")
        table.add_column("", justify="right")
        table.add_column("what", ratio=2)
        table.add_column("first of them", ratio=3, overflow="fold")
        for group in groups:
            kind = group.kind
            table.add_row(
                f"[{_STYLES[kind.severity]}]{kind.action}[/]",
                str(group.count),
                f"{kind.title}\n[dim]{kind.effect}[/]",
                escape(group.examples),
            )
        console.print(table)
    style = "bold red" if report.refusals else "bold green"
    console.print(escape(report.verdict()), style=style)


def examine_folder(
    console: Console, line: LiveLine, name: str, splits: Splits, options: Options, output: Path
) -> tuple[DataReport, list[Path]]:
    """Examine, and write both reports.

    Args:
        console: where to print; the tables are the caller's.
        line: shows how far it is.
        name: of the data set.
        splits: its files.
        options: see `Options`.
        output: folder for the reports; made if needed.

    Returns:
        What was found, and the files that say it.

    Raises:
        ConfigError: if the folder cannot be written.
    """
    print_headline(console, "Examining", name)
    report = examine(
        name,
        SplitFiles("train", splits.train.ann_file, splits.train.img_folder),
        SplitFiles("val", splits.val.ann_file, splits.val.img_folder),
        options,
        on_progress=lambda done, total: line.show("examining images", done, total),
    )
    line.show("writing the data report")
    return report, _write(report, output)


def run(args: argparse.Namespace) -> int:
    """Examine a folder; returns the exit status."""

    def examine_data(console: Console, log: CommandLog) -> int:
        splits = find_splits(args.data)
        log.open_in(args.output, LOG_FILE, option="--output")
        if splits.note:
            print_notice(console, splits.note)
        chosen = {
            name: value
            for name in ("size_hw", "num_queries", "workers")
            if (value := getattr(args, name)) is not None
        }
        options = Options(**chosen, cache=None if args.no_cache else default_folder())
        name = args.data.name or str(args.data)
        with LiveLine(console) as line:
            report, paths = examine_folder(console, line, name, splits, options, args.output)
        print_report(console, report)
        for path in (*paths, args.output / LOG_FILE):
            print_path(console, path)
        return 1 if report.refusals else 0

    return run_command(examine_data)


def _write(report: DataReport, folder: Path) -> list[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [report.write_json(folder), write_page(report, folder)]
    except OSError as error:
        raise ConfigError(
            f"{folder}: the data report cannot be written ({error.strerror}); choose another folder"
        ) from error
