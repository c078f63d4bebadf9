"""How every command speaks to people: headlines, details, one live line, tables, paths, errors.

In a terminal there are colours, and a line that moves while something takes its time. Elsewhere
there is neither: what is printed are short plain lines, as a log wants them.
"""

import os
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

from ..src.misc.text import printable

INTERRUPTED = 130  # exit status: what shells say of Ctrl-C
_BAR_WIDTH = 20


def open_console(*, stderr: bool = False) -> Console:
    """Where a command prints; sentences are broken between words by a terminal only."""
    console = Console(stderr=stderr, highlight=False)
    console.soft_wrap = not console.is_terminal
    return console


def print_headline(console: Console, what: str, about: str = "") -> None:
    """Say what is done next, and on what."""
    console.print(f"[bold]{escape(what)}[/] {escape(printable(about))}".rstrip())


def print_detail(console: Console, line: str) -> None:
    """A line that belongs to the headline above it."""
    text = escape(printable(line))
    if console.is_terminal:
        console.print(Padding(f"[dim]{text}[/]", (0, 0, 0, 2), expand=False))
    else:
        console.print(f"  {text}")


def print_notice(console: Console, line: str) -> None:
    """Something that people may want to act on."""
    console.print(escape(printable(line)), style="yellow")


def print_path(console: Console, path: Path | str) -> None:
    """Say where something is: alone on its line, whole, to be copied or clicked."""
    console.print(escape(printable(str(path))), soft_wrap=True)


def print_error(
    name: str, message: str, *, log: Path | None = None, go_on: str | None = None
) -> None:
    """The one form of errors.

    Args:
        name: kind of the error.
        message: one sentence, with the remedy.
        log: file that knows more.
        go_on: command that goes on from here.
    """
    console = open_console(stderr=True)
    console.print(f"[bold red]{escape(name)}[/]: {escape(printable(message))}")
    for title, line in (("The log:", log), ("Go on with:", go_on)):
        if line is not None:
            console.print(title)
            print_path(console, str(line))


def result_table(console: Console, title: str) -> Table:
    """A table without columns yet: lines across in a terminal, elsewhere only what is in it."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.HORIZONTALS if console.is_terminal else None,
        pad_edge=False,
    )


class LiveLine:
    """A line that says what is going on and how far it is; nothing where there is no terminal.

    As a context manager it is gone at the end. Lines printed meanwhile appear above it.

    Args:
        console: that prints in the meantime.
    """

    def __init__(self, console: Console) -> None:
        is_first = os.environ.get("RANK", "0") == "0"  # ranks share a terminal
        self._progress = Progress(
            TextColumn(
                "{task.description}", style="bold", markup=False, table_column=Column(no_wrap=True)
            ),
            BarColumn(bar_width=_BAR_WIDTH, table_column=Column(no_wrap=True)),
            _Amount(table_column=Column(no_wrap=True)),
            _Details(),  # the one that is cut where a terminal is narrow
            console=console,
            transient=True,
            disable=not (console.is_interactive and is_first),
        )
        self._what: tuple[str, int | None] | None = None

    def __enter__(self) -> "LiveLine":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def show(
        self,
        what: str,
        done: int = 0,
        total: int | None = None,
        *,
        details: str = "",
        in_bytes: bool = False,
    ) -> None:
        """Say what is done.

        Args:
            what: is done; another one begins a new bar.
            done: how much of it, in things or bytes.
            total: how much there is; None if nobody knows: then its time is shown.
            details: for the end of the line; default: the time that is left.
            in_bytes: whether `done` and `total` are bytes.
        """
        details = printable(details)
        if self._what == (what, total):
            (task,) = self._progress.task_ids
            self._progress.update(task, completed=done, details=details)
            return
        self._what = (what, total)
        for task in self._progress.task_ids:
            self._progress.remove_task(task)
        self._progress.add_task(
            printable(what), total=total, completed=done, in_bytes=in_bytes, details=details
        )
        self._progress.start()

    def close(self) -> None:
        """Remove the line; safe to call twice."""
        self._progress.stop()


@contextmanager
def starting() -> Iterator[None]:
    """Around the imports of the engine, which take seconds; help and wrong options do without."""
    try:
        with LiveLine(open_console()) as line:
            line.show("starting")
            yield
    except KeyboardInterrupt:
        print_notice(open_console(), "Interrupted.")
        raise SystemExit(INTERRUPTED) from None


class _Amount(ProgressColumn):
    """How much is done, or how long it has been going on."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text(clock(task.elapsed or 0.0))
        if task.fields["in_bytes"]:
            return DownloadColumn().render(task)
        return MofNCompleteColumn().render(task)


class _Details(ProgressColumn):
    """What the command says of it, or how long it will go on."""

    def render(self, task: Task) -> Text:
        text = task.fields["details"]
        if not text and task.time_remaining is not None:
            text = f"{clock(task.time_remaining)} left"
        return Text(text, no_wrap=True, overflow="ellipsis")


def clock(seconds: float) -> str:
    """A time as people read it: 1:05, 2:00:10."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
