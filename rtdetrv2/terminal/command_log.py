"""Logging of a command: the file gets every record, the console those meant for users."""

import logging
from collections.abc import Callable, Sequence
from logging.handlers import MemoryHandler
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from rtdetrv2_pytorch.src.misc.errors import ConfigError, RTDETRError
from rtdetrv2_pytorch.src.misc.log_routing import FILE_ONLY, is_file_only
from rtdetrv2_pytorch.src.misc.text import first_line, printable

from .console import INTERRUPTED, open_console, print_error, print_notice

logger = logging.getLogger(__name__)

OUR_PACKAGES = ("rtdetrv2_pytorch", "supervisely_integration")
_MAX_BUFFERED = 10_000  # records before the file is open


class CommandLog:
    """Routes the records of all loggers while a command runs.

    The log file gets every record, including those of libraries and Python warnings. Of the
    records of our own packages, a terminal shows warnings and errors between the command's
    output; without a terminal, stderr gets them with their time, from `level` upwards.

    Args:
        console: of the command.
        level: lowest level for stderr.
        filters: applied to every record.
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
            self._screen = _TerminalHandler(console)
        else:
            self._screen = logging.StreamHandler()
            self._screen.setFormatter(_OneLineFormatter("%(asctime)s %(levelname)s %(message)s"))
            self._screen.setLevel(level)
        self._screen.addFilter(_is_for_console)
        self._buffer = MemoryHandler(_MAX_BUFFERED, logging.CRITICAL + 1, flushOnClose=False)
        self._file: logging.Handler | None = None
        self._filters = filters
        for handler in (self._screen, self._buffer):
            self._add_filters(handler)
        self._before: tuple[list[logging.Handler], int] | None = None

    def __enter__(self) -> "CommandLog":
        root = logging.getLogger()
        self._before = (root.handlers, root.level)
        root.handlers = [self._screen, self._buffer]
        root.setLevel(min(self._level, logging.INFO))
        logging.captureWarnings(True)
        return self

    def __exit__(self, *error: object) -> None:
        root = logging.getLogger()
        assert self._before is not None
        root.handlers, level = self._before
        root.setLevel(level)
        logging.captureWarnings(False)
        for handler in (self._screen, self._buffer, self._file):
            if handler is not None:
                handler.close()

    def open(self, path: Path) -> None:
        """Open the log file, appending to an existing one, and write the buffered records to it.

        Raises:
            OSError: if the file is not writable.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        self._add_filters(handler)
        self._buffer.setTarget(handler)
        self._buffer.flush()
        logging.getLogger().handlers = [self._screen, handler]
        self._file, self.path = handler, path

    def open_in(self, folder: Path, name: str, *, option: str) -> None:
        """Open the log file in a folder that the user chose by an option; create the folder.

        Raises:
            ConfigError: if the folder is not writable.
        """
        try:
            self.open(folder / name)
        except OSError as error:
            raise ConfigError(
                f"{option} {str(folder)!r}: not writable ({error.strerror}); choose another folder"
            ) from error

    def _add_filters(self, handler: logging.Handler) -> None:
        for each in self._filters:
            handler.addFilter(each)


def run_logged(body: Callable[[Console, CommandLog], int], *, level: int = logging.INFO) -> int:
    """Run the body of a command with a console and a log; return the exit status.

    An error is printed as one sentence on stderr with the path of the log, which holds the
    traceback. Without a log file, an unexpected error is raised.

    Args:
        body: takes the console and the log, opens the log file as soon as the output folder is
            known, and returns the exit status.
        level: lowest level of log records on stderr, without a terminal.
    """
    from rtdetrv2_pytorch.src.misc.distributed import MainRankFilter  # imports torch

    console = open_console()
    with CommandLog(console, level=level, filters=[MainRankFilter()]) as log:
        try:
            return body(console, log)
        except KeyboardInterrupt:
            print_notice(console, "Interrupted.")
            return INTERRUPTED
        except RTDETRError as error:
            logger.exception("failed", extra=FILE_ONLY)
            print_error(type(error).__name__, str(error), log=log.path)
        except Exception as error:
            if log.path is None:
                raise
            logger.exception("failed", extra=FILE_ONLY)
            message = f"{first_line(error)}; the traceback is in the log"
            print_error(type(error).__name__, message, log=log.path)
        return 1


def _is_for_console(record: logging.LogRecord) -> bool:
    """Return whether a record is from this project and not printed in another form."""
    return record.name.startswith(OUR_PACKAGES) and not is_file_only(record)


class _OneLineFormatter(logging.Formatter):
    """Formats a record without its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        record.message = record.getMessage()
        record.asctime = self.formatTime(record)
        return self.formatMessage(record)


class _TerminalHandler(logging.Handler):
    """Prints warnings and errors above the live line."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message of a record."""
        is_error = record.levelno >= logging.ERROR
        name = "[red]error[/]" if is_error else "[yellow]warning[/]"
        self._console.print(f"{name}: {escape(printable(record.getMessage()))}")
