"""The data doctor on the splits of a project."""

import dataclasses
import html
import logging
import re
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rtdetrv2_pytorch.src.data.findings import Finding
from rtdetrv2_pytorch.src.doctor import names
from rtdetrv2_pytorch.src.doctor.data_page import write_page
from rtdetrv2_pytorch.src.doctor.data_report import Counts, DataReport, SplitSummary
from rtdetrv2_pytorch.src.doctor.examination import Options, examine
from rtdetrv2_pytorch.src.misc.errors import DatasetError
from rtdetrv2_pytorch.src.misc.text import counted, printable
from rtdetrv2_pytorch.src.solver.stopping import StopFlag

from .lifecycle import TrainingStopped
from .project_splits import CocoData

logger = logging.getLogger(__name__)

_LOG_INTERVAL_S = 10.0
_IN_SPLIT = re.compile(r"(?:img/)?((?:train|val)_img_\d+)(?:\.\w+)?")


@dataclass(frozen=True)
class Origins:
    """Original names of the images of the splits: the SDK copies and renames them."""

    names: Mapping[str, str] = field(default_factory=dict)  # "train_img_1" -> "data set/name"
    project: Mapping[str, Collection[str]] = field(default_factory=dict)  # data set -> images

    def restore(self, text: str) -> str:
        """Replace the names in a text by the original names."""
        return _IN_SPLIT.sub(lambda match: self.names.get(match[1], match[0]), text)

    def restore_in_page(self, page: str) -> str:
        """Replace the names in an HTML page."""
        escaped = {key: html.escape(printable(name)) for key, name in self.names.items()}
        return Origins(escaped).restore(page)


def examine_splits(
    data: CocoData,
    origins: Origins,
    folder: Path,
    options: Options,
    *,
    stop: StopFlag,
) -> DataReport:
    """Examine the training data, log the result, and write both reports.

    Args:
        data: the splits.
        origins: of their images.
        folder: for `data_report.json` and `data_report.html`; created if needed.
        options: of the examination.
        stop: ends the examination.

    Raises:
        TrainingStopped: if a stop was requested.
        DatasetError: if the trainer refuses the data.
    """
    logged_at = [time.monotonic()]

    def on_progress(done: int, total: int) -> None:
        if stop.is_set:
            raise TrainingStopped(stop.reason)
        if time.monotonic() - logged_at[0] >= _LOG_INTERVAL_S:
            logged_at[0] = time.monotonic()
            logger.info("Examining the data: %d of %s", done, counted(total, "image"))

    total = data.train.num_images + data.val.num_images
    logger.info("Examining %s", counted(total, "image"))
    report = examine(
        "the splits of the project", data.train, data.val, options, on_progress=on_progress
    )
    report = _with_origins(report, origins)
    folder.mkdir(parents=True, exist_ok=True)
    report.write_json(folder)
    write_page(report, folder)
    for line in report.lines():
        logger.info("%s", line)
    if report.refusals:
        raise DatasetError(f"{report.refusals[0]}; {report.refusals[0].kind.remedy}")
    return report


def _with_origins(report: DataReport, origins: Origins) -> DataReport:
    """Restore the names of images, and add findings of the whole project."""
    findings = [
        dataclasses.replace(f, where=origins.restore(f.where), detail=origins.restore(f.detail))
        for f in report.findings
    ]
    left_out = list(_left_out(origins))
    summaries = [*report.splits]
    if left_out:
        summaries.append(SplitSummary("in no split", Counts(0, len(left_out)), Counts()))
    findings += [*_name_findings(origins), *left_out]
    return dataclasses.replace(report, splits=summaries, findings=findings)


def _name_findings(origins: Origins) -> Iterator[Finding]:
    by_split = {
        split: {name for key, name in origins.names.items() if key.startswith(split)}
        for split in ("train", "val")
    }
    for name in sorted(by_split["train"] & by_split["val"]):
        yield Finding("split_overlap", name)
    everything = sorted(by_split["train"] | by_split["val"])
    yield from names.file_names("", everything)
    yield from names.same_names([Path(name) for name in everything])


def _left_out(origins: Origins) -> Iterator[Finding]:
    used = set(origins.names.values())
    for dataset, images in sorted(origins.project.items()):
        missing = sorted(name for name in images if f"{dataset}/{name}" not in used)
        yield from (Finding("left_out", f"{dataset}/{name}") for name in missing)
