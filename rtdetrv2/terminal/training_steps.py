"""Console view of the steps around a training, such as the examination of the dataset."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from ..training.progress import TrainingProgress
from .console import LiveLine, print_headline, print_notice, print_path, result_table

if TYPE_CHECKING:
    from rtdetrv2_pytorch.src.doctor.data_report import DataReport

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}  # by severity


class ConsoleProgress(TrainingProgress):
    """Shows the steps around a training.

    Args:
        console: to print to.
        line: of the console.
    """

    def __init__(self, console: Console, line: LiveLine) -> None:
        self._console = console
        self._line = line

    def show(self, activity: str, done: int = 0, total: int | None = None) -> None:
        """Show an activity on the progress line."""
        self._line.show(activity, done, total)

    def headline(self, title: str, subject: str) -> None:
        """Print a headline."""
        print_headline(self._console, title, subject)

    def notice(self, line: str) -> None:
        """Print a notice."""
        print_notice(self._console, line)

    def examined(self, report: "DataReport", paths: Sequence[Path]) -> None:
        """Print findings above notes, and the paths of the data report."""
        from rtdetrv2_pytorch.src.data.severity import Severity

        if any(group.kind.severity is not Severity.NOTE for group in report.groups()):
            print_report(self._console, report)
        for path in paths:
            print_path(self._console, path)


def print_report(console: Console, report: "DataReport") -> None:
    """Print the counts of each split and the findings by kind."""
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
        table.add_column("finding", ratio=2)
        table.add_column("examples", ratio=3, overflow="fold")
        for group in groups:
            kind = group.kind
            table.add_row(
                f"[{_STYLES[kind.severity.value]}]{kind.action}[/]",
                str(group.count),
                f"{kind.title}\n[dim]{kind.effect}[/]",
                escape(group.examples),
            )
        console.print(table)
    style = "bold red" if report.refusals else "bold green"
    console.print(escape(report.summary()), style=style)
