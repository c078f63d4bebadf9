"""Writes what was read from a folder into an instance, as a new project."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.misc.errors import DatasetError
from rtdetrv2_pytorch.src.misc.text import counted, printable, whole_characters

from ..emulator.store import Store, StoreError
from .decoding import upright_contents
from .formats import read
from .source import FormatName, ImportItem, ImportSource, Ledger

_BATCH = 32  # images a transaction: one wait for the disk for all of them, but not for long
_NAMES_SHOWN = 5

OnProgress = Callable[[int, int], None]  # images done, images in all


@dataclass
class DatasetCount:
    """What one data set of the new project holds."""

    images: int = 0
    objects: int = 0


@dataclass(frozen=True)
class ImportReport:
    """What became of a folder.

    Images and objects add up: those of the data sets and the skipped ones are the given ones.
    """

    project_id: int
    project_name: str
    format: FormatName
    datasets: dict[str, DatasetCount]  # by path, "parent/child"
    ledger: Ledger = field(repr=False)

    @property
    def images(self) -> int:
        """Images of the project."""
        return sum(count.images for count in self.datasets.values())

    @property
    def objects(self) -> int:
        """Objects of the project."""
        return sum(count.objects for count in self.datasets.values())

    def lines(self) -> list[str]:
        """The report for people, line by line."""
        result = [
            f"project {self.project_id} {self.project_name!r} from {self.format} format: "
            f"{self.images} of {self.ledger.given_images} images, "
            f"{self.objects} of {self.ledger.given_objects} objects"
        ]
        result += [
            f"  {name}: {counted(count.images, 'image')}, {counted(count.objects, 'object')}"
            for name, count in self.datasets.items()
        ]
        return result + [f"  {line}" for line in _skip_lines(self.ledger)]


def _skip_lines(ledger: Ledger) -> list[str]:
    """One line a reason: how much was skipped for it, and the first names."""
    lines = []
    for reason, skips in ledger.by_reason().items():
        names = ", ".join(printable(skip.what) for skip in skips[:_NAMES_SHOWN])
        more = f" and {len(skips) - _NAMES_SHOWN} more" if len(skips) > _NAMES_SHOWN else ""
        lost = sum(skip.objects for skip in skips if skip.images)
        with_them = f", {counted(lost, 'object')} with them" if lost else ""
        lines.append(f"skipped {len(skips)}: {reason}{with_them} ({names}{more})")
    return lines


def import_folder(
    store: Store,
    folder: Path,
    *,
    name: str | None = None,
    format: FormatName | None = None,
    on_progress: OnProgress | None = None,
) -> ImportReport:
    """Make a project of a folder.

    If it fails or is interrupted, no half project stays behind.

    Args:
        store: of the instance.
        folder: in one of the formats.
        name: of the project, not taken; default: that of the folder, with a number if need be.
        format: of the folder; default: the one it looks like.
        on_progress: called with (images done, images in all).

    Raises:
        DatasetError: if the folder cannot be read, or no image of it can be used.
        StoreError: if the name is taken.
    """
    folder = folder.resolve()
    source = read(folder, format)
    project_name = whole_characters(name or "") or store.projects.free_name(
        whole_characters(folder.name) or "project"
    )
    project_id = store.projects.create(project_name, _storable(source.meta))
    try:
        datasets = _fill(store, project_id, source, on_progress)
        if not datasets:
            reasons = "; ".join(_skip_lines(source.ledger)[:_NAMES_SHOWN]) or "there are none"
            raise DatasetError(
                f"{folder}: none of its {source.ledger.given_images} images can be used: {reasons}"
            )
    except BaseException:
        store.projects.remove([project_id])
        raise
    return ImportReport(project_id, project_name, source.format, datasets, source.ledger)


def _fill(
    store: Store, project_id: int, source: ImportSource, on_progress: OnProgress | None
) -> dict[str, DatasetCount]:
    counts: dict[str, DatasetCount] = {}
    ids: dict[str, int] = {}
    while batch := list(islice(source.items, _BATCH)):
        with store.transaction():
            for item in batch:
                dataset = whole_characters(item.dataset)
                dataset_id = _dataset(store, project_id, dataset, ids)
                count = counts.setdefault(dataset, DatasetCount())
                if _add(store, dataset_id, item, source.ledger):
                    count.images += 1
                    count.objects += item.num_objects
        if on_progress is not None:
            done = source.ledger.given_images
            on_progress(done, max(done, source.num_images))
    if on_progress is not None:
        on_progress(source.ledger.given_images, source.ledger.given_images)
    return {name: count for name, count in counts.items() if count.images}


def _dataset(store: Store, project_id: int, path: str, ids: dict[str, int]) -> int:
    """The data set of this path, made with its parents if it is new."""
    if path not in ids:
        parent, _, name = path.rpartition("/")
        parent_id = _dataset(store, project_id, parent, ids) if parent else None
        ids[path] = store.datasets.create(project_id, name, parent_id)
    return ids[path]


def _add(store: Store, dataset_id: int, item: ImportItem, ledger: Ledger) -> bool:
    """Add an image; False if the instance refuses it, or it is gone by now."""
    try:
        contents = upright_contents(item.path) or item.path
        image_id = store.images.create(dataset_id, item.name, contents)
    except (StoreError, OSError) as error:
        what = f"{item.dataset}/{item.name}: {error}"
        ledger.skip_image(what, "image that was not accepted", objects=item.num_objects)
        return False
    store.annotations.set(image_id, _storable(item.annotation))
    return True


def _storable(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """What JSON holds, all of its texts in whole characters."""
    text = json.dumps(content, ensure_ascii=False)
    whole = whole_characters(text)
    return content if whole == text else json.loads(whole)  # type: ignore[no-any-return]
