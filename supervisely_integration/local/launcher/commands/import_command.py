"""The `import` command: create a project from a folder; see --help."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from rtdetrv2.terminal.command import PATH, Command
from rtdetrv2.terminal.command_log import CommandLog
from rtdetrv2.terminal.console import (
    LiveLine,
    open_console,
    print_detail,
    print_headline,
    print_path,
    python_name,
    starting,
)

from ...emulator.store import Store
from .options import DEFAULT_ROOT, ROOT

if TYPE_CHECKING:
    from rtdetrv2_pytorch.src.data.readers.source import FormatName


@click.command(cls=Command, short_help="Create a project from a folder.")
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


def import_folder(
    store: Store,
    folder: Path,
    console: Console,
    line: LiveLine,
    *,
    name: str | None = None,
    format_: "FormatName | None" = None,
    check_classes: Callable[[Sequence[str]], None] | None = None,
) -> int:
    """Import a folder, show the progress and the report; return the project id.

    Raises:
        ConfigError: of `check_classes`, which receives the class names before anything is stored.
        DatasetError: if no image of the folder can be used.
        StoreError: if the name is taken.
    """
    from ...importers import into_store

    print_headline(console, "Importing", str(folder))
    line.show("reading annotations")
    report = into_store.import_folder(
        store,
        folder,
        name=name,
        format=format_,
        check_classes=check_classes,
        on_progress=lambda done, total: line.show("importing images", done, total),
    )
    for each in report.lines():
        print_detail(console, each)
    return report.project_id
