"""The `get` command: copy from Team Files; see --help."""

import os
import posixpath
from collections.abc import Callable
from pathlib import Path

import click

from rtdetrv2.terminal.command import PATH, Command
from rtdetrv2.terminal.command_log import CommandLog
from rtdetrv2.terminal.console import LiveLine, open_console, print_path

from ...emulator.storage.team_files import normalize
from ...emulator.store import TEAM_ID, InvalidRequestError, NotFoundError, Store
from .options import ROOT

_PROGRESS_FROM_BYTES = 8 << 20


_EXAMPLES = """
examples:
  rtdetrv2 local get /experiments/1_my_folder/7_RT-DETRv2 my_run
"""


@click.command(cls=Command, epilog=_EXAMPLES, short_help="Copy a file or folder from Team Files.")
@click.argument("remote")
@click.argument("local", type=PATH, default=Path())
@ROOT
@click.pass_obj
def main(log: CommandLog, *, remote: str, local: Path, root: Path) -> int:
    """Copy the file or folder REMOTE of Team Files to LOCAL, by default the current folder."""
    copies = _plan(Store(root), remote, local)
    total = sum(source.stat().st_size for source, _ in copies)
    copied = 0
    with LiveLine(open_console(stderr=True)) as line:

        def show(count: int) -> None:
            nonlocal copied
            copied += count
            if total >= _PROGRESS_FROM_BYTES:
                line.show(remote, copied, total, in_bytes=True)

        for source, target in copies:
            _copy(source, target, on_bytes=show)
    console = open_console()
    for _, target in copies:
        print_path(console, target)
    return 0


def _plan(store: Store, remote: str, local: Path) -> list[tuple[Path, Path]]:
    """The contents and the target of every file to copy.

    Like `cp -r`: into `local` if that is a folder, else under that name.

    Raises:
        NotFoundError: if the path does not exist.
        InvalidRequestError: if a target is a folder.
    """
    path = normalize(remote)
    entries = store.files.entries(TEAM_ID, path)
    if not entries:
        raise NotFoundError("Team Files path", remote)
    base = local / posixpath.basename(path) if local.is_dir() else local
    copies = []
    for entry in entries:
        inside = entry["path"].removeprefix(path).lstrip("/")
        target = base / inside if inside else base
        if target.is_dir():
            raise InvalidRequestError(f"{target} is a folder; use another name")
        copies.append((store.files.contents(entry), target))
    return copies


def _copy(source: Path, target: Path, *, on_bytes: Callable[[int], None]) -> None:
    """Copy a file; the target is created when the copy is complete."""
    from ...emulator.streaming import read_chunks  # imports fastapi

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            for chunk in read_chunks(source):
                file.write(chunk)
                on_bytes(len(chunk))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
