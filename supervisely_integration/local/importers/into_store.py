"""Import of a folder into an instance, as a new project."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import ImageOps

from rtdetrv2_pytorch.src.data.findings import Findings, UnusableError, grouped
from rtdetrv2_pytorch.src.data.images.decoding import EXIF_ORIENTATION
from rtdetrv2_pytorch.src.data.images.opening import ImageFileError, open_image
from rtdetrv2_pytorch.src.data.images.orientation import SIDEWAYS
from rtdetrv2_pytorch.src.data.readers.source import FormatName
from rtdetrv2_pytorch.src.data.split_names import PARTS, Decision, Part
from rtdetrv2_pytorch.src.misc.errors import DatasetError
from rtdetrv2_pytorch.src.misc.text import counted, whole_characters

from ..emulator.store import Store, StoreError
from .items import ImportItem, ImportSource, read_items

_BATCH = 32  # images per transaction: one disk sync for all of them
_MAX_REASONS = 5

OnProgress = Callable[[int, int], None]  # images done, total images


@dataclass
class DatasetCount:
    """Number of images and objects of one dataset of the new project."""

    images: int = 0
    objects: int = 0


@dataclass(frozen=True)
class ImportReport:
    """Result of an import.

    Images and objects of the datasets and the lost ones add up to the given ones.
    """

    project_id: int
    project_name: str
    format: FormatName
    datasets: dict[str, DatasetCount]  # by path, "parent/child"
    findings: Findings = field(repr=False)
    decision: Decision  # which datasets are training, validation and test, and why

    @property
    def images(self) -> int:
        """Number of images of the project."""
        return sum(count.images for count in self.datasets.values())

    @property
    def objects(self) -> int:
        """Number of objects of the project."""
        return sum(count.objects for count in self.datasets.values())

    def lines(self) -> list[str]:
        """Return the report, line by line."""
        result = [
            f"project {self.project_id} {self.project_name!r} from {self.format} format: "
            f"{self.images} of {counted(self.findings.given_images, 'image')}, "
            f"{self.objects} of {counted(self.findings.given_objects, 'object')}"
        ]
        result += [
            f"  {name}: {counted(count.images, 'image')}, {counted(count.objects, 'object')}"
            for name, count in self.datasets.items()
        ]
        result.append(f"  {self.decision.note}")
        return result + [f"  {group}" for group in grouped(self.findings)]


def import_folder(
    store: Store,
    folder: Path,
    *,
    name: str | None = None,
    format: FormatName | None = None,
    check_classes: Callable[[Sequence[str]], None] | None = None,
    on_progress: OnProgress | None = None,
) -> ImportReport:
    """Import a folder as a project.

    A failed or interrupted import leaves no partial project.

    Args:
        store: of the instance.
        folder: of the data set.
        name: of the project; default: a free name like that of the folder.
        format: default: detected.
        check_classes: called with the class names before anything is stored.
        on_progress: called with (images done, total images).

    Raises:
        DatasetError: if the folder cannot be read, or has no usable image.
        StoreError: if the name is taken.
    """
    folder = folder.resolve()
    source = read_items(folder, format)
    if check_classes is not None:
        check_classes([each["title"] for each in source.meta["classes"]])
    project_name = whole_characters(name or "") or store.projects.free_name(
        whole_characters(folder.name) or "project"
    )
    project_id = store.projects.create(project_name, _storable(source.meta))
    try:
        datasets, by_part = _fill(store, project_id, source, on_progress)
        if not datasets:
            reasons = "; ".join(map(str, grouped(source.findings)[:_MAX_REASONS])) or "it has none"
            given = source.findings.given_images
            raise DatasetError(
                f"{folder}: none of its {counted(given, 'image')} can be used: {reasons}"
            )
        if source.decision.divided:
            _note_split(store, project_id, by_part)
    except BaseException:
        store.projects.remove([project_id])
        raise
    return ImportReport(
        project_id, project_name, source.format, datasets, source.findings, source.decision
    )


def _fill(
    store: Store, project_id: int, source: ImportSource, on_progress: OnProgress | None
) -> tuple[dict[str, DatasetCount], dict[Part | None, list[int]]]:
    """Add all images; return the counts by dataset, and the ids of images by part."""
    by_part: dict[Part | None, list[int]] = {}
    counts: dict[str, DatasetCount] = {}
    ids: dict[str, int] = {}
    while batch := list(islice(source.items, _BATCH)):
        with store.transaction():
            for item in batch:
                dataset = whole_characters(item.dataset)
                dataset_id = _dataset(store, project_id, dataset, ids)
                count = counts.setdefault(dataset, DatasetCount())
                image_id = _add(store, dataset_id, item, source.findings)
                if image_id is not None:
                    by_part.setdefault(item.part, []).append(image_id)
                    count.images += 1
                    count.objects += item.num_objects
        if on_progress is not None:
            done = source.findings.given_images
            on_progress(done, max(done, source.num_images))
    if on_progress is not None:
        on_progress(source.findings.given_images, source.findings.given_images)
    return {name: count for name, count in counts.items() if count.images}, by_part


def _note_split(store: Store, project_id: int, by_part: Mapping[Part | None, list[int]]) -> None:
    """Store a random split as the collections "train" and "val" of the project."""
    for part in PARTS:
        if by_part.get(part):
            id_ = store.collections.create(project_id, part)
            store.collections.add_items(id_, [{"entityId": i} for i in by_part[part]])


def _dataset(store: Store, project_id: int, path: str, ids: dict[str, int]) -> int:
    """Return the id of the dataset with this path; create it and its parents if needed."""
    if path not in ids:
        parent, _, name = path.rpartition("/")
        parent_id = _dataset(store, project_id, parent, ids) if parent else None
        ids[path] = store.datasets.create(project_id, name, parent_id)
    return ids[path]


def _add(store: Store, dataset_id: int, item: ImportItem, findings: Findings) -> int | None:
    """Add an image; return its id, or None if it is rejected, or its file has disappeared."""
    try:
        contents = _upright_contents(item.path) or item.path
        image_id = store.images.create(dataset_id, item.name, contents)
    except (StoreError, OSError, ImageFileError) as error:
        rejected = UnusableError("image_rejected", str(error))
        findings.skip_image(
            rejected, item.name, item.path, split=item.dataset, objects=item.num_objects
        )
        return None
    store.annotations.set(image_id, _storable(item.annotation))
    return image_id


def _upright_contents(path: Path) -> bytes | None:
    """Return the file with its pixels rotated upright, if EXIF data swap its width and height.

    Programs disagree whether the size of such a file is that before or after turning. Returns
    None for all other files, which are stored unchanged.
    """
    with open_image(path) as file:
        if file.getexif().get(EXIF_ORIENTATION, 1) not in SIDEWAYS:
            return None
    with open_image(path, decode=True) as file:
        turned = ImageOps.exif_transpose(file)
        buffer = io.BytesIO()
        options = {"quality": 95} if file.format in ("JPEG", "MPO", "WEBP") else {}
        turned.save(buffer, "JPEG" if file.format == "MPO" else file.format, **options)
        return buffer.getvalue()


def _storable(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return JSON content with all texts as valid Unicode."""
    text = json.dumps(content, ensure_ascii=False)
    whole = whole_characters(text)
    return content if whole == text else json.loads(whole)  # type: ignore[no-any-return]
