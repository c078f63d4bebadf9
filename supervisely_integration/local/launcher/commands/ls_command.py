"""The `ls` command: list Team Files; see --help."""

from pathlib import Path

import click

from rtdetrv2.terminal.command import Command
from rtdetrv2.terminal.command_log import CommandLog

from ...emulator.store import TEAM_ID, InvalidRequestError, Store
from .options import ROOT

_EXAMPLES = """
examples:
  rtdetrv2 local ls
  rtdetrv2 local ls -r /experiments
"""


@click.command(cls=Command, epilog=_EXAMPLES, short_help="List Team Files.")
@click.argument("path", default="/")
@click.option("-r", "--recursive", is_flag=True, help="List all files below.")
@ROOT
@click.pass_obj
def main(log: CommandLog, *, path: str, recursive: bool, root: Path) -> int:
    """List the file or folder PATH of Team Files, by default /."""
    entries = Store(root).files.entries(TEAM_ID, path, is_recursive=recursive)
    if not entries and path.strip("/"):
        raise InvalidRequestError(f"{path} is not in Team Files of {root}; see `ls /`")
    for entry in entries:
        click.echo(f"{entry['size']:>14,}  {entry['updatedAt'][:19]}  {entry['path']}")
    return 0
