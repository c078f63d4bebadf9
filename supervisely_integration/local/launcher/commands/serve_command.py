"""The `serve` command: serve a checkpoint in the app; see --help."""

from typing import Any

import click

from rtdetrv2.terminal.command import Command
from rtdetrv2.terminal.command_log import CommandLog
from rtdetrv2.terminal.console import open_console, starting

from .options import APP_PORT, ROOT

_EXAMPLES = """
examples:
  rtdetrv2 local serve
  rtdetrv2 local serve --checkpoint output/my/best.pth --runtime OpenVINO --device cpu
"""


@click.command(cls=Command, epilog=_EXAMPLES, short_help="Serve a checkpoint, in the app.")
@click.option(
    "--checkpoint",
    help="Path in Team Files or on this machine.  [default: the best one of the latest experiment]",
)
@click.option(
    "--runtime", default="PyTorch", show_default=True, help="PyTorch, ONNXRuntime, OpenVINO, ..."
)
@click.option("--device", help="cpu, cuda:0, ...  [default: a GPU if available]")
@APP_PORT
@ROOT
@click.pass_obj
def main(log: CommandLog, /, **options: Any) -> int:
    """Serve a checkpoint in the app until it is stopped."""
    with starting():
        from ..serve_session import run
    return run(open_console(), log, **options)
