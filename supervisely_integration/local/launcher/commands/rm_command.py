"""The `rm` command: remove Team Files; see --help."""

from pathlib import Path

import click

from rtdetrv2.terminal.command import Command
from rtdetrv2.terminal.command_log import CommandLog
from rtdetrv2_pytorch.src.misc.text import counted

from ...emulator.store import TEAM_ID, InvalidRequestError, Store
from .options import ROOT

_EXAMPLES = """
examples:
  rtdetrv2 local rm /experiments/1_my_folder/7_RT-DETRv2
"""


@click.command(cls=Command, epilog=_EXAMPLES, short_help="Remove files or folders from Team Files.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@ROOT
@click.pass_obj
def main(log: CommandLog, *, paths: tuple[str, ...], root: Path) -> int:
    """Remove files or folders of Team Files."""
    store = Store(root)
    for path in paths:
        count = store.files.remove(TEAM_ID, [path])
        if not count:
            raise InvalidRequestError(f"{path} is not in Team Files of {root}; see `ls /`")
        click.echo(f"removed {counted(count, 'file')}: {path}")
    return 0
