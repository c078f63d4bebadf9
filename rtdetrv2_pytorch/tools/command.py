"""How the engine's commands begin and end: their log, their errors, their exit status."""

import logging
from collections.abc import Callable

from rich.console import Console

from ..src.misc.distributed import MainRankFilter
from ..src.misc.errors import RTDETRError
from ..src.misc.log_lines import FOR_FILE
from ..src.misc.text import first_line
from .command_log import CommandLog
from .console import INTERRUPTED, open_console, print_error, print_notice

logger = logging.getLogger(__name__)


def run_command(body: Callable[[Console, CommandLog], int]) -> int:
    """Run what a command does; returns the exit status.

    An error is one sentence on the error stream, and the path of the log, which has the traceback.
    One that nobody expects is raised where there is no log yet.

    Args:
        body: gets where to print, and the log, whose file it begins as soon as the run has a
            folder; returns the exit status.
    """
    console = open_console()
    with CommandLog(console, filters=[MainRankFilter()]) as log:
        try:
            return body(console, log)
        except KeyboardInterrupt:
            print_notice(console, "Interrupted.")
            return INTERRUPTED
        except RTDETRError as error:
            logger.exception("failed", extra=FOR_FILE)
            print_error(type(error).__name__, str(error), log=log.path)
        except Exception as error:
            if log.path is None:
                raise
            logger.exception("failed", extra=FOR_FILE)
            what = f"{first_line(error)}; the log says where"
            print_error(type(error).__name__, what, log=log.path)
        return 1
