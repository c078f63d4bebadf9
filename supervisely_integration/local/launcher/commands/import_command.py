"""The `import` command: create a project from a folder; see --help."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rtdetrv2.terminal.command import PATH, Command
from rtdetrv2.terminal.command_log import CommandLog
from rtdetrv2.terminal.console import (
    LiveLine,
    open_console,
    print_headline,
    print_path,
    python_name,
    starting,
)

from ...emulator.store import Store
from ..importing import import_folder
from .options import DEFAULT_ROOT, ROOT

if TYPE_CHECKING:
    from rtdetrv2_pytorch.src.data.readers.source import FormatName


_EXAMPLES = """
examples:
  rtdetrv2 local import my_folder
  rtdetrv2 local import my_folder --name cells --format coco
"""


@click.command(cls=Command, epilog=_EXAMPLES, short_help="Create a project from a folder.")
@click.argument("folder", type=PATH)
@click.option("--name", help="Project name.  [default: name of the folder]")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["auto", "supervisely", "coco", "labelme", "yolo", "voc"]),
    default="auto",
    show_default=True,
    help="Data format.",
)
@ROOT
@click.pass_obj
def main(log: CommandLog, *, folder: Path, name: str | None, format_: str, root: Path) -> int:
    """Create a project from FOLDER, in Supervisely, COCO, LabelMe, YOLO or Pascal VOC format."""
    console = open_console()
    with starting():
        from ...importers import into_store  # noqa: F401 - imports torch
    with LiveLine(console) as line:
        wanted: FormatName | None = None if format_ == "auto" else format_  # type: ignore[assignment]
        project = import_folder(Store(root), folder, console, line, name=name, format_=wanted)
    print_headline(console, "Next", "train on this project")
    words = ["-m", "supervisely_integration.local", "train", "--project", str(project)]
    if root != DEFAULT_ROOT:
        words += ["--root", str(root)]
    print_path(console, shlex.join([python_name(), *words]))
    return 0
