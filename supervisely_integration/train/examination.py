"""The data doctor on the splits of a project: what became of every image that was given."""

import dataclasses
import html
import logging
import re
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rtdetrv2_pytorch.src.data.findings import Finding, finding
from rtdetrv2_pytorch.src.doctor import names
from rtdetrv2_pytorch.src.doctor.data_report import Counts, DataReport, SplitSummary
from rtdetrv2_pytorch.src.doctor.examination import Options, SplitFiles, examine
from rtdetrv2_pytorch.src.doctor.page import write_page
from rtdetrv2_pytorch.src.misc.errors import DatasetError
from rtdetrv2_pytorch.src.misc.text import printable
from rtdetrv2_pytorch.src.solver.stopping import StopFlag

from .coco import CocoData, SplitReport
from .lifecycle import Stopped

logger = logging.getLogger(__name__)

_QUIET_S = 10.0  # between two lines of progress
_IN_SPLIT = re.compile(r"(?:img/)?((?:train|val)_img_\d+)(?:\.\w+)?")


@dataclass(frozen=True)
class Origins:
    """Where the images of the splits come from; the SDK copies them under names of its own."""

    names: Mapping[str, str] = field(default_factory=dict)  # "train_img_1" -> "data set/name"
    project: Mapping[str, Collection[str]] = field(default_factory=dict)  # data set -> images

    def restore(self, text: str) -> str:
        """A text with the names that people know."""
        return _IN_SPLIT.sub(lambda match: self.names.get(match[1], match[0]), text)

    def restore_in_page(self, page: str) -> str:
        """The same for HTML."""
        escaped = {key: html.escape(printable(name)) for key, name in self.names.items()}
        return Origins(escaped).restore(page)


def examine_splits(
    data: CocoData,
    origins: Origins,
    folder: Path,
    *,
    size_hw: tuple[int, int],
    num_queries: int,
    stop: StopFlag,
) -> DataReport:
    """Examine what a training is about to use, log it, and write both reports.

    Args:
        data: the splits.
        origins: of their images.
        folder: gets `data_report.json` and `data_report.html`; made if needed.
        size_hw: (height, width) of the images in training.
        num_queries: of the model.
        stop: ends the pass.

    Raises:
        Stopped: if it was stopped.
        DatasetError: if the data cannot be trained on.
    """
    spoken = [time.monotonic()]

    def tell(done: int, total: int) -> None:
        if stop.is_set:
            raise Stopped(stop.reason)
        if time.monotonic() - spoken[0] >= _QUIET_S:
            spoken[0] = time.monotonic()
            logger.info("Examining the data: %d of %d images", done, total)

    logger.info("Examining %d images", data.train.num_images + data.val.num_images)
    train, val = (
        SplitFiles(split.name, split.ann_file, split.img_folder) for split in (data.train, data.val)
    )
    options = Options(size_hw=size_hw, num_queries=num_queries, only_these_files=True)
    report = examine("the project's splits", train, val, options, on_progress=tell)
    report = _complete(report, data, origins)
    folder.mkdir(parents=True, exist_ok=True)
    report.write_json(folder)
    write_page(report, folder)
    for line in report.lines():
        logger.info("%s", line)
    if report.refusals:
        raise DatasetError(f"{report.refusals[0]}; {report.refusals[0].kind.remedy}")
    return report


def _complete(report: DataReport, data: CocoData, origins: Origins) -> DataReport:
    """Add what the COCO files do not show, and give images their own names back."""
    findings = [*report.findings]
    for split in (data.train, data.val):
        findings += _of_conversion(split)
    findings = [
        dataclasses.replace(f, where=origins.restore(f.where), detail=origins.restore(f.detail))
        for f in findings
    ]
    left_out = list(_left_out(origins))
    findings += [*_of_names(origins), *left_out]
    summaries = [
        _with_conversion(summary, split)
        for summary, split in zip(report.splits, (data.train, data.val), strict=True)
    ]
    if left_out:
        count = sum(each.count for each in left_out)
        summaries.append(SplitSummary("in no split", Counts(0, count), Counts()))
    return dataclasses.replace(report, splits=summaries, findings=findings)


def _of_conversion(split: SplitReport) -> Iterator[Finding]:
    yield from split.findings
    for title, shapes in split.left_out.items():
        for shape, count in shapes.items():
            yield finding("unknown_geometry", title, shape, split=split.name, count=count)
    for title, count in split.not_selected.items():
        yield finding("class_not_selected", title, split=split.name, count=count)


def _with_conversion(summary: SplitSummary, split: SplitReport) -> SplitSummary:
    clipped = sum(f.kind.name == "box_out_of_bounds" for f in split.findings)
    return dataclasses.replace(
        summary,
        images=summary.images + Counts(0, split.num_given - split.num_images),
        boxes=summary.boxes + Counts(0, split.num_objects - split.num_boxes),
        clipped=summary.clipped + clipped,
    )


def _of_names(origins: Origins) -> Iterator[Finding]:
    by_split = {
        split: {name for key, name in origins.names.items() if key.startswith(split)}
        for split in ("train", "val")
    }
    for name in sorted(by_split["train"] & by_split["val"]):
        yield finding("split_overlap", name)
    everything = sorted(by_split["train"] | by_split["val"])
    yield from names.file_names("", everything)
    yield from names.same_names([Path(name) for name in everything])


def _left_out(origins: Origins) -> Iterator[Finding]:
    used = set(origins.names.values())
    for dataset, images in sorted(origins.project.items()):
        missing = sorted(name for name in images if f"{dataset}/{name}" not in used)
        yield from (finding("left_out", f"{dataset}/{name}") for name in missing)
