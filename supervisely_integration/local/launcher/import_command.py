"""`python -m supervisely_integration.local import`: a folder becomes a project."""

import argparse
from pathlib import Path

from rich.console import Console

from rtdetrv2_pytorch.src.data.readers import FormatName
from rtdetrv2_pytorch.tools.console import LiveLine, print_detail, print_headline

from ..emulator.store import Store
from ..importers import import_folder


def run(args: argparse.Namespace, console: Console) -> int:
    """Import; returns the exit code.

    Raises:
        DatasetError: if nothing of the folder can be used.
        StoreError: if the name is taken.
    """
    format_ = None if args.format == "auto" else args.format
    with LiveLine(console) as line:
        import_shown(Store(args.root), args.folder, console, line, name=args.name, format=format_)
    return 0


def import_shown(
    store: Store,
    folder: Path,
    console: Console,
    line: LiveLine,
    *,
    name: str | None = None,
    format: FormatName | None = None,
) -> int:
    """Make a project of a folder, as `import_folder` does, and say so; returns its id."""
    print_headline(console, "Importing", str(folder))
    line.show("reading annotations")
    report = import_folder(
        store,
        folder,
        name=name,
        format=format,
        on_progress=lambda done, total: line.show("importing images", done, total),
    )
    for said in report.lines():
        print_detail(console, said)
    return report.project_id
