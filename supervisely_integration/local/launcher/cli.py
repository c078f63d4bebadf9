"""The command line of the local instance."""

import logging
import os
import sqlite3
import sys
from collections.abc import Sequence

import click

from rtdetrv2.terminal.command import LazyGroup
from rtdetrv2.terminal.command_log import CommandLog
from rtdetrv2.terminal.console import open_console, print_error
from rtdetrv2_pytorch.src.misc.errors import RTDETRError, extra

from ..emulator.storage.sql.errors import StoreError
from .app_log import AppError

_PACKAGE = "supervisely_integration.local.launcher.commands"


class _Group(LazyGroup):
    """Logs and reports the errors of all commands in one way."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if the name is unknown."""
        with extra("supervisely"):
            return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> int:
        """Run a command; return the exit status."""
        wanted = os.environ.get("LOG_LEVEL", "").upper()  # set for the SDK, which has more levels
        level = logging.getLevelNamesMapping().get(wanted, logging.WARNING)
        with CommandLog(open_console(), level=level) as log:
            ctx.obj = log
            try:
                with extra("supervisely"):
                    code = int(super().invoke(ctx) or 0)
                sys.stdout.flush()  # flush here, where a closed pipe is handled
                return code
            except (click.exceptions.Exit, click.Abort):  # --help and Ctrl-C; RuntimeErrors, too
                raise
            except AppError as error:
                print_error(
                    error.name, str(error), log=error.log, resume_command=error.resume_command
                )
            except (StoreError, RTDETRError, RuntimeError) as error:
                print_error(type(error).__name__, str(error))
            except BrokenPipeError:  # the reader has closed the pipe, as in `ls | head`
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            except OSError as error:
                where = f"{error.filename}: " if error.filename else ""
                print_error(type(error).__name__, f"{where}{error.strerror or error}")
            except sqlite3.Error as error:
                print_error(type(error).__name__, f"database error ({error})")
        return 1


_EXAMPLES = """
examples:
  rtdetrv2 local import my_folder
  rtdetrv2 local train --project my_folder --epochs 20
  rtdetrv2 local serve
"""


@click.group(
    cls=_Group,
    name="local",
    epilog=_EXAMPLES,
    lazy={
        "up": f"{_PACKAGE}.up_command:main",
        "import": f"{_PACKAGE}.import_command:main",
        "train": f"{_PACKAGE}.train_command:main",
        "serve": f"{_PACKAGE}.serve_command:main",
        "ls": f"{_PACKAGE}.ls_command:main",
        "get": f"{_PACKAGE}.get_command:main",
        "rm": f"{_PACKAGE}.rm_command:main",
    },
)
def group() -> None:
    """A Supervisely instance for one machine: no account, no network."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    return group(arguments, prog_name="python -m supervisely_integration.local")
