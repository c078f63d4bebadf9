"""One pass over a data set: how the trainer handles each file, entry and box."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.annotation_arrays import Annotations, ImageRecord
from ..data.categories import CategoryTable, normalize_id
from ..data.coco_dataset import parse_coco
from ..data.conversion import Split
from ..data.findings import Finding, Findings, Illustration
from ..data.images.pixel_range import MIN_LEVELS, PixelRange
from ..data.loading.repeats import class_factors, image_fractions, is_rare, recommended_threshold
from ..data.metrics.detection_limit import COCO_LIMIT, limit_of_split
from ..data.readers.coco_json import name_of, read_categories, read_coco_json
from ..data.readers.folders import has_byte_order_mark
from ..misc.errors import DatasetError
from ..misc.text import counted
from . import leakage, names
from .box_examiner import BoxExaminer
from .cache import FactsCache
from .data_report import Counts, DataReport, SplitSummary
from .deep_values import DeepValues, choose_range
from .image_files import ImageFacts, examine_image
from .leakage import UsedImage

OnProgress = Callable[[int, int], None]  # images done, total images

_MAX_THREADS = 8  # more of them wait for each other


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of an examination."""

    size_hw: tuple[int, int] = (640, 640)  # (height, width) of the images in training
    num_queries: int = 300  # of the model
    num_top_queries: int = 300  # detections per image that the model returns
    pixel_range: PixelRange | None = None  # of the configuration; None: chosen by the data
    workers: int = min(os.cpu_count() or 1, _MAX_THREADS)  # threads; decoding releases the GIL
    cache: Path | None = None  # folder of the cache for unchanged files; None disables it

    @classmethod
    def of_model(cls, values: Mapping[str, Any], **more: Any) -> "Options":
        """Return the options for the model of a configuration; `more` are the other ones."""
        network = values.get("RTDETRTransformerv2") or {}
        output = {**(values.get("RTDETRPostProcessor") or {}), **values}
        return cls(
            size_hw=tuple(values.get("eval_spatial_size") or cls.size_hw),
            num_queries=network.get("num_queries") or cls.num_queries,
            num_top_queries=output.get("num_top_queries") or cls.num_top_queries,
            **more,
        )


@dataclass
class _SplitState:
    """A split during the examination."""

    source: Split
    findings: Findings  # of reading the annotation file
    content: Mapping[str, Any] = field(default_factory=lambda: {"images": [], "annotations": []})
    annotations: Annotations | None = None
    refusals: list[Finding] = field(default_factory=list)
    facts: list[ImageFacts] = field(default_factory=list)  # in the order of the annotations

    @property
    def name(self) -> str:
        return self.source.name

    def path(self, file_name: str) -> Path:
        return self.source.img_folder / file_name

    def file_names(self) -> list[str]:
        """Return all valid file names, including those of missing files."""
        return [name for name in map(name_of, self.content["images"]) if name is not None]

    def records(self) -> Iterator[ImageRecord]:
        annotations = self.annotations
        return (annotations[i] for i in range(len(annotations))) if annotations else iter(())

    def examined(self) -> Iterator[tuple[ImageRecord, ImageFacts, Path]]:
        """Yield each image with the facts about its file, and the path of the file."""
        for record, facts in zip(self.records(), self.facts, strict=True):
            yield record, facts, self.path(record.file_name)

    def illustration(self, path: Path, facts: ImageFacts | None = None) -> Illustration | None:
        """Return an image for the report, which may be shared: none outside the folder."""
        if not _real(path).is_relative_to(_real(self.source.img_folder)):
            return None
        return Illustration(path, facts.size_wh if facts is not None else None)

    def used_images(self) -> list[UsedImage]:
        return [
            UsedImage(record.file_name, path, facts, self.illustration(path, facts))
            for record, facts, path in self.examined()
            if facts.is_used
        ]


def examine(
    data: str,
    train: Split,
    val: Split,
    options: Options,
    *,
    others: Sequence[Finding] = (),
    on_progress: OnProgress | None = None,
) -> DataReport:
    """Examine a data set, named `data` in the report; problems of the data never raise.

    `others` are findings of neither split, such as images that no annotation names.
    `on_progress` is called for each image, in this thread; its exceptions end the pass.
    """
    first = _read(train, None)
    table = first.annotations.categories if first.annotations is not None else None
    splits = [first, _read(val, table)]
    _examine_images(splits, options, on_progress)
    pixel_range = options.pixel_range or choose_range(_deep_values(first))
    findings = list(_pixel_range_findings(splits, pixel_range))
    summaries = []
    findings += _balance_findings(first)
    for split in splits:
        boxes = _box_examiner(split, options)
        findings += _split_findings(split, boxes)
        summaries.append(_summary(split, boxes))
        findings += _refusals(split, summaries[-1])
    findings += _cross_split_findings(splits)
    findings += others
    num_unused = sum(found.lost_images for found in others)
    if num_unused:
        summaries.append(SplitSummary("in no split", Counts(0, num_unused), Counts()))
    return DataReport(data, options.size_hw, options.num_queries, summaries, findings, pixel_range)


def _read(source: Split, reference: CategoryTable | None) -> _SplitState:
    """Read the annotations of a split as the trainer does."""
    split = _SplitState(source, Findings(source.name))
    kind = "annotations_unreadable"
    try:
        split.content = read_coco_json(source.ann_file)
        kind = "classes_unusable"
        own = read_categories(split.content, str(source.ann_file))
        if reference is not None:
            reference.check_shared(own, source=str(source.ann_file))
        kind = "split_refused"
        split.annotations = parse_coco(
            split.content, source.ann_file, source.img_folder, split.findings, reference
        )
    except DatasetError as error:
        if kind == "split_refused" and not _has_repeated_ids(split.content):
            kind = "empty_split"
        reason = str(error).removeprefix(f"{source.ann_file}: ")
        split.refusals.append(Finding(kind, source.ann_file.name, reason, split=source.name))
    return split


def _has_repeated_ids(content: Mapping[str, Any]) -> bool:
    entries = [entry for entry in content["images"] if isinstance(entry, dict)]
    ids = [normalize_id(e["id"]) for e in entries if "id" in e and e.get("file_name")]
    return len(set(ids)) < len(ids)


def _examine_images(
    splits: Sequence[_SplitState], options: Options, on_progress: OnProgress | None
) -> None:
    """Decode every image as the trainer does, in several threads."""
    caches = [FactsCache(options.cache, split.source.img_folder) for split in splits]
    jobs = [
        (cache, split.path(record.file_name), record.size_wh)
        for split, cache in zip(splits, caches, strict=True)
        for record in split.records()
    ]
    pool = ThreadPoolExecutor(options.workers, thread_name_prefix="doctor")
    results = []
    try:
        for facts in pool.map(_facts, *zip(*jobs, strict=True)) if jobs else ():
            results.append(facts)
            if on_progress is not None:
                on_progress(len(results), len(jobs))
    finally:
        pool.shutdown(cancel_futures=True)
        for cache in caches:
            cache.save(is_complete=len(results) == len(jobs))
    rest = iter(results)
    for split in splits:
        split.facts = [next(rest) for _ in split.records()]


def _facts(cache: FactsCache, path: Path, declared_wh: tuple[int, int] | None) -> ImageFacts:
    key = cache.key(path, declared_wh)
    known = None if key is None else cache.get(key)
    if known is not None:
        return known
    facts = examine_image(path, declared_wh)
    if key is not None:
        cache.put(key, facts)
    return facts


def _split_findings(split: _SplitState, boxes: BoxExaminer) -> Iterator[Finding]:
    """Yield all findings about one split, and count its boxes."""
    source = split.source
    for found in source.findings:
        shown = found.picture and split.illustration(found.picture.path) and found.picture
        yield dataclasses.replace(found, picture=shown)
    if has_byte_order_mark(source.ann_file):
        yield Finding("byte_order_mark", source.ann_file.name, split=split.name)
    listings: names.Listings = {}
    for found in split.findings:
        if found.kind.name == "missing_image":
            similar = names.similar_file(found.where, source.img_folder, listings)
            detail = f"there is {similar}, whose name differs only in form" if similar else ""
            found = dataclasses.replace(found, detail=detail)
        yield found
    yield from names.file_names(split.name, split.file_names())
    folder = _real(source.img_folder)
    for record, facts, path in split.examined():
        if not _real(path).is_relative_to(folder):
            yield Finding("outside_folder", record.file_name, str(_real(path)), split=split.name)
        picture = split.illustration(path, facts)
        for kind, detail in facts.problems:
            yield Finding(kind, record.file_name, detail, split=split.name, picture=picture)
        yield from boxes.examine(record, facts.size_wh, picture)
    yield from leakage.duplicates(split.name, split.used_images())
    effect = "cannot be learned" if split.name == "train" else "cannot be measured"
    for label, name in enumerate(boxes.class_names):
        if not boxes.objects[label]:
            yield Finding("class_without_objects", name, effect, split=split.name)


def _deep_values(split: _SplitState) -> list[DeepValues]:
    return [facts.deep for facts in split.facts if facts.deep is not None]


def _pixel_range_findings(
    splits: Sequence[_SplitState], pixel_range: PixelRange | None
) -> Iterator[Finding]:
    """Yield the range of the data set, with a picture, and the images that it leaves too dark."""
    deep = [
        (split, record.file_name, facts.deep, split.illustration(path, facts))
        for split in splits
        for record, facts, path in split.examined()
        if facts.deep is not None
    ]
    for split, name, values, picture in deep[:1]:
        low, high = pixel_range or values.default_range
        yield Finding(
            "pixel_range", f"{low:g} to {high:g}", name, split=split.name, picture=picture
        )
    for split, name, values, picture in deep:
        levels = values.levels(pixel_range)
        if levels < MIN_LEVELS:
            detail = f"{counted(levels, 'gray level')} left"
            yield Finding("few_levels", name, detail, split=split.name, picture=picture)


def _real(path: Path) -> Path:
    """Resolve all links; a link that refers to itself stays."""
    return Path(os.path.realpath(path))


def _balance_findings(split: _SplitState) -> Iterator[Finding]:
    """Yield the classes that are far rarer than others, with the threshold that repeats them."""
    if split.annotations is None:
        return
    fractions, total = image_fractions(split.annotations), len(split.annotations)
    threshold = recommended_threshold(fractions)
    if threshold is None:
        return
    factors, names = class_factors(fractions, threshold), split.annotations.categories.names
    common = int(fractions.argmax())
    for label in np.flatnonzero(is_rare(fractions)):
        detail = (
            f"in {fractions[label] * total:.0f} of {counted(total, 'image')}, {names[common]!r} in "
            f"{fractions[common] * total:.0f}; repeat_threshold {threshold:g} repeats them "
            f"{factors[label]:.1f} times"
        )
        yield Finding("class_rare", names[label], detail, split=split.name)


def _box_examiner(split: _SplitState, options: Options) -> BoxExaminer:
    annotations, limit = split.annotations, COCO_LIMIT
    if annotations is not None:
        limit = limit_of_split(annotations, options.num_top_queries)
    return BoxExaminer(
        split.name,
        annotations.categories.names if annotations is not None else (),
        size_hw=options.size_hw,
        num_queries=options.num_queries,
        num_top_queries=options.num_top_queries,
        ap_limit=limit,
    )


def _summary(split: _SplitState, boxes: BoxExaminer) -> SplitSummary:
    converted = split.source.findings
    lost = Counts(0, converted.lost_images), Counts(0, converted.lost_objects)
    listed, written = (len(split.content[key]) for key in ("images", "annotations"))
    if split.annotations is None:
        return SplitSummary(split.name, Counts(0, listed) + lost[0], Counts(0, written) + lost[1])
    used = sum(facts.is_used for facts in split.facts) - boxes.lost_images
    clipped = sum(found.kind.name == "box_out_of_bounds" for found in converted)
    return SplitSummary(
        split.name,
        Counts(used, listed - used) + lost[0],
        Counts(boxes.used, boxes.skipped + split.findings.lost_objects) + lost[1],
        clipped=boxes.clipped + clipped,
        classes={name: boxes.objects[label] for label, name in enumerate(boxes.class_names)},
    )


def _refusals(split: _SplitState, summary: SplitSummary) -> Iterator[Finding]:
    """Yield the reasons for which the trainer refuses the split."""
    yield from split.refusals
    where = split.source.ann_file.name
    if not split.refusals and not summary.images.used:
        detail = f"none of {counted(summary.images.given, 'image')} can be used"
        yield Finding("empty_split", where, detail, split=split.name)
    elif not split.refusals and not summary.boxes.used:
        detail = f"none of {counted(summary.boxes.given, 'box')} can be used"
        yield Finding("no_boxes", where, detail, split=split.name)


def _cross_split_findings(splits: Sequence[_SplitState]) -> Iterator[Finding]:
    """Yield findings that need both splits."""
    tables = [split.annotations.categories.names for split in splits if split.annotations]
    yield from names.class_names(list(dict.fromkeys(name for table in tables for name in table)))
    train, val = (
        {_real(split.path(r.file_name)): r.file_name for r in split.records()} for split in splits
    )
    for path in sorted(train.keys() & val.keys()):
        yield Finding("split_overlap", val[path], picture=splits[1].illustration(path))
    yield from leakage.leaks(splits[0].used_images(), splits[1].used_images())
    named = {
        _real(split.path(record.file_name)): Path(split.name, record.file_name)
        for split in splits
        for record in split.records()
    }
    yield from names.same_names(list(named.values()))
