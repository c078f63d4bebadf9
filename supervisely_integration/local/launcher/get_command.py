"""The `get` command: copy from Team Files; see --help."""

from pathlib import Path

import click

from rtdetrv2_pytorch.tools.command import PATH, Command
from rtdetrv2_pytorch.tools.command_log import CommandLog
from rtdetrv2_pytorch.tools.console import LiveLine, open_console, print_path

from ..emulator.store import Store
from .download import plan_copy
from .options import ROOT

_PROGRESS_FROM_BYTES = 8 << 20


@click.command(cls=Command, short_help="Copy a file or folder from Team Files.")
@click.argument("remote")
@click.argument("local", type=PATH, default=Path())
@ROOT
@click.pass_obj
def main(log: CommandLog, *, remote: str, local: Path, root: Path) -> int:
    """Copy the file or folder REMOTE of Team Files to LOCAL, by default the current folder."""
    copies = plan_copy(Store(root), remote, local)
    total = sum(each.size for each in copies)
    copied = 0
    with LiveLine(open_console(stderr=True)) as line:

        def show(count: int) -> None:
            nonlocal copied
            copied += count
            if total >= _PROGRESS_FROM_BYTES:
                line.show(remote, copied, total, in_bytes=True)

        for each in copies:
            each.run(on_bytes=show)
    console = open_console()
    for each in copies:
        print_path(console, each.target)
    return 0
