"""The log of a command: a file has all lines, people see those that are meant for them."""

import logging
from collections.abc import Sequence
from logging.handlers import MemoryHandler
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from ..src.misc.errors import ConfigError
from ..src.misc.log_lines import is_for_file
from ..src.misc.text import printable

OURS = ("rtdetrv2_pytorch", "supervisely_integration")  # whose lines are written for people
_MOST_HELD = 10_000  # lines before there is a file


class CommandLog:
    """Sends the lines of all loggers where they belong while a command runs.

    Everything goes to one file, what libraries say and Python's warnings, too. Of our own lines
    people see warnings in a terminal, among what the command prints; elsewhere the error stream
    gets them with their time, from `level` upwards.

    Args:
        console: of the command.
        level: of the lines for the error stream.
        filters: that every line has to pass.
    """

    def __init__(
        self,
        console: Console,
        *,
        level: int = logging.INFO,
        filters: Sequence[logging.Filter] = (),
    ) -> None:
        self.path: Path | None = None
        self._level = level
        self._screen: logging.Handler
        if console.is_terminal:
            self._screen = _Terminal(console)
        else:
            self._screen = logging.StreamHandler()
            self._screen.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
            self._screen.setLevel(level)
        self._screen.addFilter(_is_for_people)
        self._held = MemoryHandler(_MOST_HELD, logging.CRITICAL + 1, flushOnClose=False)
        self._file: logging.Handler | None = None
        self._filters = filters
        for each in (self._screen, self._held):
            self._add_filters(each)
        self._before: tuple[list[logging.Handler], int] | None = None

    def __enter__(self) -> "CommandLog":
        root = logging.getLogger()
        self._before = (root.handlers, root.level)
        root.handlers = [self._screen, self._held]
        root.setLevel(min(self._level, logging.INFO))
        logging.captureWarnings(True)
        return self

    def __exit__(self, *error: object) -> None:
        root = logging.getLogger()
        assert self._before is not None
        root.handlers, level = self._before
        root.setLevel(level)
        logging.captureWarnings(False)
        for each in (self._screen, self._held, self._file):
            if each is not None:
                each.close()

    def open(self, path: Path) -> None:
        """Begin the file, with what was said until now; an earlier one is gone on with.

        Raises:
            OSError: if it cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        self._add_filters(handler)
        self._held.setTarget(handler)
        self._held.flush()
        logging.getLogger().handlers = [self._screen, handler]
        self._file, self.path = handler, path

    def open_in(self, folder: Path, name: str, *, option: str) -> None:
        """The same, for a folder that somebody chose.

        Args:
            folder: of the run; made if needed.
            name: of the file.
            option: by which the folder was chosen, for the message.

        Raises:
            ConfigError: if the folder cannot be written.
        """
        try:
            self.open(folder / name)
        except OSError as error:
            raise ConfigError(
                f"{option} {str(folder)!r}: cannot be written ({error.strerror}); choose another"
            ) from error

    def _add_filters(self, handler: logging.Handler) -> None:
        for each in self._filters:
            handler.addFilter(each)


def _is_for_people(record: logging.LogRecord) -> bool:
    """Whether a line is ours, and not told in another way."""
    return record.name.startswith(OURS) and not is_for_file(record)


class _OneLine(logging.Formatter):
    """Leaves tracebacks to the file."""

    def format(self, record: logging.LogRecord) -> str:
        record.message = record.getMessage()
        record.asctime = self.formatTime(record)
        return self.formatMessage(record)


class _Terminal(logging.Handler):
    """Prints warnings above the live line."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        is_error = record.levelno >= logging.ERROR
        name = "[red]error[/]" if is_error else "[yellow]warning[/]"
        self._console.print(f"{name}: {escape(printable(record.getMessage()))}")
