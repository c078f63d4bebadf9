"""Console output of all commands: headlines, details, a progress line, tables, paths, errors.

A terminal shows colors and a live progress line; other outputs get short plain lines.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
)
from rich.table import Column, Table
from rich.text import Text

from rtdetrv2_pytorch.src.misc.text import printable

from .notebook_line import NotebookLine

INTERRUPTED = 130  # exit status after Ctrl-C, as in shells
_BAR_WIDTH = 20


def open_console(*, stderr: bool = False) -> Console:
    """Return the console of a command; only a terminal wraps lines."""
    console = Console(stderr=stderr, highlight=False)
    console.soft_wrap = not console.is_terminal
    return console


def print_headline(console: Console, title: str, subject: str = "") -> None:
    """Print the next step in bold, and its subject."""
    console.print(f"[bold]{escape(title)}[/] {escape(printable(subject))}".rstrip())


def print_detail(console: Console, line: str) -> None:
    """Print an indented line below a headline."""
    text = escape(printable(line))
    if console.is_terminal:
        console.print(Padding(f"[dim]{text}[/]", (0, 0, 0, 2), expand=False))
    else:
        console.print(f"  {text}")


def print_notice(console: Console, line: str) -> None:
    """Print a line that the user may want to act on."""
    console.print(escape(printable(line)), style="yellow")


def print_path(console: Console, path: Path | str) -> None:
    """Print a path on its own line without wrapping, to be copied or clicked."""
    console.print(escape(printable(str(path))), soft_wrap=True)


def print_error(
    name: str, message: str, *, log: Path | None = None, resume_command: str | None = None
) -> None:
    """Print an error to stderr, with its log file and the command that resumes the work."""
    console = open_console(stderr=True)
    console.print(f"[bold red]{escape(name)}[/]: {escape(printable(message))}")
    for title, line in (("Log:", log), ("Resume with:", resume_command)):
        if line is not None:
            console.print(title)
            print_path(console, str(line))


def result_table(console: Console, title: str) -> Table:
    """Return a table without columns; only a terminal shows its rules."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.HORIZONTALS if console.is_terminal else None,
        pad_edge=False,
    )


class LiveLine:
    """A progress line in a terminal or a notebook; no output elsewhere.

    As a context manager, removes the line at the end. Other output appears above it.
    """

    def __init__(self, console: Console) -> None:
        is_first = os.environ.get("RANK", "0") == "0"  # ranks share a terminal
        self._progress = Progress(
            TextColumn(
                "{task.description}", style="bold", markup=False, table_column=Column(no_wrap=True)
            ),
            BarColumn(bar_width=_BAR_WIDTH, table_column=Column(no_wrap=True)),
            _Amount(table_column=Column(no_wrap=True)),
            _Details(),  # truncated if the terminal is narrow
            console=console,
            transient=True,
            disable=not (console.is_interactive and is_first),
        )
        self._shown: tuple[str, int | None] | None = None
        self._notebook = NotebookLine() if console.is_jupyter else None

    def __enter__(self) -> "LiveLine":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.pause()

    def show(
        self,
        activity: str,
        done: int = 0,
        total: int | None = None,
        *,
        details: str = "",
        in_bytes: bool = False,
    ) -> None:
        """Show an activity and its progress.

        Args:
            activity: another one starts a new bar.
            done: finished items or bytes.
            total: number of items or bytes; None shows the elapsed time instead.
            details: end of the line; default: the remaining time.
            in_bytes: whether `done` and `total` are bytes.
        """
        details = printable(details)
        if self._notebook is not None:
            amount = f"{done}/{total}" if total and not in_bytes else ""
            self._notebook.show(printable(activity), amount, details)
            return
        if self._shown == (activity, total):
            (task,) = self._progress.task_ids
            self._progress.update(task, completed=done, details=details)
            return
        self._shown = (activity, total)
        for task in self._progress.task_ids:
            self._progress.remove_task(task)
        self._progress.add_task(
            printable(activity), total=total, completed=done, in_bytes=in_bytes, details=details
        )
        self._progress.start()

    def pause(self) -> None:
        """Remove the line until the next `show`, for a question to the user."""
        self._progress.stop()
        self._shown = None
        if self._notebook is not None:
            self._notebook.clear()


@contextmanager
def starting() -> Iterator[None]:
    """Show progress while the body of a command imports the engine, which takes seconds."""
    try:
        with LiveLine(open_console()) as line:
            line.show("starting")
            yield
    except KeyboardInterrupt:
        print_notice(open_console(), "Interrupted.")
        raise SystemExit(INTERRUPTED) from None


class _Amount(ProgressColumn):
    """The finished and total amount, or the elapsed time."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text(format_duration(task.elapsed or 0.0))
        if task.fields["in_bytes"]:
            return DownloadColumn().render(task)
        return MofNCompleteColumn().render(task)


class _Details(ProgressColumn):
    """The details, or the remaining time."""

    def render(self, task: Task) -> Text:
        text = task.fields["details"]
        if not text and task.time_remaining is not None:
            text = f"{format_duration(task.time_remaining)} left"
        return Text(text, no_wrap=True, overflow="ellipsis")


def format_duration(seconds: float) -> str:
    """Format seconds as 1:05 or 2:00:10."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def python_name() -> str:
    """Return how a shell in this directory starts this Python."""
    found = shutil.which("python")
    if found is not None and Path(found).absolute() == Path(sys.executable).absolute():
        return "python"
    return short_path(Path(sys.executable))


def short_path(path: Path) -> str:
    """Return a path relative to the current directory, if it is inside."""
    absolute = Path.cwd() / path  # without following the links of a virtual environment
    is_inside = absolute.is_relative_to(Path.cwd())
    return str(absolute.relative_to(Path.cwd()) if is_inside else absolute)
