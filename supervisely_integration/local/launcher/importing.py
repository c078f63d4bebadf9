"""Import of a folder with progress and a report on the console."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from rtdetrv2.terminal.console import LiveLine, print_detail, print_headline

from ..emulator.store import Store

if TYPE_CHECKING:
    from rtdetrv2_pytorch.src.data.readers.source import FormatName


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
    from ..importers import into_store  # imports torch

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
