"""One pass over a data set: what the trainer makes of every file, entry and box."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ..data.annotations import Annotations, ImageRecord
from ..data.categories import CategoryTable, normalise_id
from ..data.coco_dataset import parse_coco, read_categories, read_coco_json
from ..data.dataset import SkipReason
from ..data.findings import Finding, Illustration, finding
from ..misc.errors import DatasetError
from . import leakage, names
from .boxes import BoxExaminer, NotedItems, skipped_entries, written_as_text
from .cache import PictureCache
from .data_report import Counts, DataReport, SplitSummary
from .image_files import Picture, examine_picture
from .leakage import Seen

OnProgress = Callable[[int, int], None]  # images done, images in all

_BOM = b"\xef\xbb\xbf"
_THREADS = 8  # more wait for each other


@dataclass(frozen=True)
class SplitFiles:
    """Where a split is."""

    name: str
    ann_file: Path
    img_folder: Path


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the data is to be used for, and how it is examined.

    Args:
        size_hw: (height, width) of the images in training.
        num_queries: of the model.
        workers: threads; decoding leaves Python's lock alone.
        cache: folder to keep what is known of files that do not change; None: keep nothing.
        only_these_files: whether images that no split lists are none of our business.
    """

    size_hw: tuple[int, int] = (640, 640)
    num_queries: int = 300
    workers: int = min(os.cpu_count() or 1, _THREADS)
    cache: Path | None = None
    only_these_files: bool = False


@dataclass
class _Split:
    """A split, as far as it could be read."""

    files: SplitFiles
    noted: NotedItems
    content: Mapping[str, Any] = field(default_factory=lambda: {"images": [], "annotations": []})
    annotations: Annotations | None = None
    refusals: list[Finding] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)  # by the annotations' index

    @property
    def name(self) -> str:
        return self.files.name

    def path(self, file_name: str) -> Path:
        return self.files.img_folder / file_name

    def file_names(self) -> list[str]:
        """As listed, whether there or not."""
        entries = self.content["images"]
        found = (entry.get("file_name") for entry in entries if isinstance(entry, dict))
        return [name for name in found if isinstance(name, str) and name]

    def names_by_id(self) -> dict[Any, str]:
        entries = [entry for entry in self.content["images"] if isinstance(entry, dict)]
        return {normalise_id(entry.get("id")): str(entry.get("file_name")) for entry in entries}


def examine(
    data: str,
    train: SplitFiles,
    val: SplitFiles,
    options: Options,
    *,
    on_progress: OnProgress | None = None,
) -> DataReport:
    """Examine a data set in COCO format; nothing that is wrong with it raises.

    Args:
        data: what is examined, for people.
        train: the training split.
        val: the validation split.
        options: what it is to be used for.
        on_progress: told about every image, in this thread; what it raises ends the pass.
    """
    first = _read(train, None)
    table = first.annotations.categories if first.annotations is not None else None
    splits = [first, _read(val, table)]
    _examine_pictures(splits, options, on_progress)
    findings: list[Finding] = []
    summaries = []
    for split in splits:
        boxes = _box_examiner(split, options)
        findings += _of_split(split, boxes)
        summaries.append(_summary(split, boxes))
        findings += _refusals(split, summaries[-1])
    findings += _across(splits)
    if not options.only_these_files:
        unlisted = list(_unlisted(splits))
        findings += unlisted
        if unlisted:
            summaries.append(SplitSummary("in no split", Counts(0, len(unlisted)), Counts()))
    return DataReport(data, options.size_hw, options.num_queries, summaries, findings)


def _read(files: SplitFiles, reference: CategoryTable | None) -> _Split:
    """Read the annotations of a split as the trainer does."""
    split = _Split(files, NotedItems(str(files.ann_file)))
    kind = "annotations_unreadable"
    try:
        split.content = read_coco_json(files.ann_file)
        kind = "classes_unusable"
        own = read_categories(split.content, str(files.ann_file))
        if reference is not None:
            reference.labels_of(own, source=str(files.ann_file))
        kind = "split_refused"
        split.annotations = parse_coco(
            split.content, files.ann_file, files.img_folder, split.noted, reference
        )
    except DatasetError as error:
        if kind == "split_refused" and not _has_repeated_ids(split.content):
            kind = "empty_split"
        reason = str(error).removeprefix(f"{files.ann_file}: ")
        split.refusals.append(finding(kind, files.ann_file.name, reason, split=files.name))
    return split


def _has_repeated_ids(content: Mapping[str, Any]) -> bool:
    entries = [entry for entry in content["images"] if isinstance(entry, dict)]
    ids = [normalise_id(e["id"]) for e in entries if "id" in e and e.get("file_name")]
    return len(set(ids)) < len(ids)


def _examine_pictures(
    splits: Sequence[_Split], options: Options, on_progress: OnProgress | None
) -> None:
    """Decode every image, as the trainer would, several at a time."""
    caches = [PictureCache(options.cache, split.files.img_folder) for split in splits]
    jobs = [
        (cache, split.path(record.file_name), record.size_wh)
        for split, cache in zip(splits, caches, strict=True)
        for record in _records(split)
    ]
    pool = ThreadPoolExecutor(options.workers, thread_name_prefix="doctor")
    pictures = []
    try:
        for picture in pool.map(_picture, *zip(*jobs, strict=True)) if jobs else ():
            pictures.append(picture)
            if on_progress is not None:
                on_progress(len(pictures), len(jobs))
    finally:
        pool.shutdown(cancel_futures=True)
        for cache in caches:
            cache.save(is_complete=len(pictures) == len(jobs))
    rest = iter(pictures)
    for split in splits:
        split.pictures = [next(rest) for _ in _records(split)]


def _picture(cache: PictureCache, path: Path, declared_wh: tuple[int, int] | None) -> Picture:
    key = cache.key(path, declared_wh)
    known = None if key is None else cache.get(key)
    if known is not None:
        return known
    picture = examine_picture(path, declared_wh)
    if key is not None:
        cache.put(key, picture)
    return picture


def _records(split: _Split) -> Iterator[ImageRecord]:
    annotations = split.annotations
    return (annotations[i] for i in range(len(annotations))) if annotations else iter(())


def _of_split(split: _Split, boxes: BoxExaminer) -> Iterator[Finding]:
    """Everything about one split; counts its boxes on the way."""
    files = split.files
    if _begins_with(files.ann_file, _BOM):
        yield finding("byte_order_mark", files.ann_file.name, split=split.name)
    listings: names.Listings = {}
    for reason, what in split.noted.items:
        if reason == SkipReason.MISSING:
            meant = names.alike(str(what), files.img_folder, listings)
            detail = f"there is {meant}, whose name differs only in form" if meant else ""
            yield finding("missing_image", str(what), detail, split=split.name)
    by_id = split.names_by_id()
    yield from skipped_entries(split.name, split.noted, by_id)
    yield from written_as_text(split.name, split.content, split.noted, by_id)
    yield from names.file_names(split.name, split.file_names())
    folder = _real(files.img_folder)
    for record, picture in zip(_records(split), split.pictures, strict=True):
        path = split.path(record.file_name)
        if not _real(path).is_relative_to(folder):
            yield finding("outside_folder", record.file_name, str(_real(path)), split=split.name)
        shown = _shown(split, path, picture)
        for kind, detail in picture.problems:
            yield finding(kind, record.file_name, detail, split=split.name, picture=shown)
        yield from boxes.examine(record, picture.size_wh, shown)
    yield from leakage.duplicates(split.name, _seen(split))
    effect = "cannot be learned" if split.name == "train" else "cannot be measured"
    for label, name in enumerate(boxes.class_names):
        if not boxes.objects[label]:
            yield finding("class_without_objects", name, effect, split=split.name)


def _begins_with(path: Path, mark: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(mark)) == mark
    except OSError:
        return False


def _real(path: Path) -> Path:
    """Where a path leads, through all links; a loop leads to itself."""
    return Path(os.path.realpath(path))


def _shown(split: _Split, path: Path, picture: Picture | None = None) -> Illustration | None:
    """The picture for the report, but none that lies elsewhere: the report may be handed on."""
    if not _real(path).is_relative_to(_real(split.files.img_folder)):
        return None
    return Illustration(path, picture.size_wh if picture is not None else None)


def _seen(split: _Split) -> list[Seen]:
    """The pictures that the trainer uses."""
    return [
        Seen(record.file_name, path, picture, _shown(split, path, picture))
        for record, picture in zip(_records(split), split.pictures, strict=True)
        if picture.is_used
        for path in [split.path(record.file_name)]
    ]


def _box_examiner(split: _Split, options: Options) -> BoxExaminer:
    table = split.annotations.categories if split.annotations is not None else None
    return BoxExaminer(
        split.name,
        table.names if table is not None else (),
        size_hw=options.size_hw,
        num_queries=options.num_queries,
    )


def _summary(split: _Split, boxes: BoxExaminer) -> SplitSummary:
    listed, written = (len(split.content[key]) for key in ("images", "annotations"))
    if split.annotations is None:
        return SplitSummary(split.name, Counts(0, listed), Counts(0, written))
    used = sum(picture.is_used for picture in split.pictures)
    counts = boxes.counts
    return SplitSummary(
        split.name,
        Counts(used, listed - used),
        Counts(counts.used, counts.skipped + split.noted.num_annotations()),
        clipped=counts.clipped,
        classes={name: boxes.objects[label] for label, name in enumerate(boxes.class_names)},
    )


def _refusals(split: _Split, summary: SplitSummary) -> Iterator[Finding]:
    """Why the trainer would not begin with this split."""
    yield from split.refusals
    where = split.files.ann_file.name
    if not split.refusals and not summary.images.used:
        detail = f"none of {summary.images.given} images can be used"
        yield finding("empty_split", where, detail, split=split.name)
    elif not split.refusals and not summary.boxes.used:
        detail = f"none of {summary.boxes.given} boxes can be used"
        yield finding("no_boxes", where, detail, split=split.name)


def _across(splits: Sequence[_Split]) -> Iterator[Finding]:
    """What only both splits together show."""
    tables = [split.annotations.categories.names for split in splits if split.annotations]
    yield from names.class_names(list(dict.fromkeys(name for table in tables for name in table)))
    train, val = (
        {_real(split.path(r.file_name)): r.file_name for r in _records(split)} for split in splits
    )
    for path in sorted(train.keys() & val.keys()):
        yield finding("split_overlap", val[path], picture=_shown(splits[1], path))
    yield from leakage.leaks(_seen(splits[0]), _seen(splits[1]))
    named = {
        _real(split.path(record.file_name)): Path(split.name, record.file_name)
        for split in splits
        for record in _records(split)
    }
    yield from names.same_names(list(named.values()))


def _unlisted(splits: Sequence[_Split]) -> Iterator[Finding]:
    """Images in the folders of the splits that none of them lists."""
    listed = {_real(split.path(name)) for split in splits for name in split.file_names()}
    readable = Image.registered_extensions()
    seen: set[Path] = set()
    for split in splits:
        for parent, folders, files in os.walk(split.files.img_folder):
            folders.sort()
            for path in (Path(parent, name) for name in sorted(files)):
                is_new = path.suffix.lower() in readable and path not in seen
                if is_new and _real(path) not in listed:
                    where = str(path.relative_to(split.files.img_folder.parent))
                    yield finding("unlisted_image", where, picture=_shown(split, path))
                seen.add(path)
