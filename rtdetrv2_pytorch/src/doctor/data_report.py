"""Result of an examination: counts, findings by kind, and JSON."""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..data.finding_kinds import KINDS
from ..data.findings import Finding, Group, grouped
from ..data.images.pixel_range import PixelRange
from ..data.severity import Action, Severity
from ..misc.text import counted

REPORT_JSON, REPORT_HTML = "data_report.json", "data_report.html"
_FORMAT = 1
_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTE: 2}
_NOTES_OF_BOXES = frozenset({"box_crowd", "object_left_out"})  # that are skipped


@dataclass(frozen=True)
class Counts:
    """Number of used and skipped images or boxes."""

    used: int = 0
    skipped: int = 0

    @property
    def given(self) -> int:
        """Used and skipped together."""
        return self.used + self.skipped

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.used + other.used, self.skipped + other.skipped)

    def as_dict(self) -> dict[str, int]:
        """Return plain values."""
        return {"given": self.given, "used": self.used, "skipped": self.skipped}


@dataclass(frozen=True)
class SplitSummary:
    """Counts of one split; images that no split lists form another one."""

    name: str
    images: Counts
    boxes: Counts
    clipped: int = 0  # included in the used boxes
    classes: Mapping[str, int] = field(default_factory=dict)  # used boxes


@dataclass(frozen=True)
class DataReport:
    """The result of an examination."""

    data: str  # name of the data set
    size_hw: tuple[int, int]
    num_queries: int
    splits: Sequence[SplitSummary]
    findings: Sequence[Finding]
    pixel_range: PixelRange | None = None  # of images with more than 8 bits

    @property
    def images(self) -> Counts:
        """Sum over all splits."""
        return sum((split.images for split in self.splits), Counts())

    @property
    def boxes(self) -> Counts:
        """Sum over all splits."""
        return sum((split.boxes for split in self.splits), Counts())

    @property
    def refusals(self) -> list[Finding]:
        """Findings that prevent training."""
        return [f for f in self.findings if f.kind.action is Action.REFUSES]

    def groups(self) -> list[Group]:
        """Return findings by kind, the most severe first."""
        place = {name: i for i, name in enumerate(KINDS)}
        mostly_lost = self._mostly_lost()
        groups = [_rated(group, mostly_lost) for group in grouped(self.findings)]
        return sorted(groups, key=lambda g: (_ORDER[g.kind.severity], place[g.kind.name]))

    def _mostly_lost(self) -> set[str]:
        """Return the splits of whose boxes most are skipped with a note only."""
        lost = Counter[str]()
        for found in self.findings:
            lost[found.split] += found.count * (found.kind_name in _NOTES_OF_BOXES)
        return {each.name for each in self.splits if 2 * lost[each.name] > each.boxes.given}

    def summary(self) -> str:
        """Return the result in one sentence."""
        images, boxes = self.images, self.boxes
        numbers = (
            f"{counted(images.given, 'image')}: {images.used} used, {images.skipped} skipped; "
            f"{counted(boxes.given, 'box')}: {boxes.used} used, {boxes.skipped} skipped"
        )
        if self.refusals:
            return f"The trainer refuses this data. {numbers}"
        kinds = len(self.groups())
        found = f"{counted(kinds, 'kind')} of findings" if kinds else "no findings"
        return f"The trainer uses this data. {numbers}; {found}"

    def lines(self, most: int = 12) -> Iterator[str]:
        """Yield lines for a log: the result, and one line per kind, up to `most`."""
        yield self.summary()
        groups = self.groups()
        for group in groups[:most]:
            yield str(group)
        if len(groups) > most:
            yield f"{len(groups) - most} more kinds are in {REPORT_HTML}"

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the JSON file, with every finding."""
        return {
            "format": _FORMAT,
            "data": self.data,
            "training_size_hw": list(self.size_hw),
            "num_queries": self.num_queries,
            "pixel_range": self.pixel_range and list(self.pixel_range),
            "verdict": "refuses" if self.refusals else "uses",
            "images": self.images.as_dict(),
            "boxes": self.boxes.as_dict(),
            "splits": [
                {
                    "name": split.name,
                    "images": split.images.as_dict(),
                    "boxes": {**split.boxes.as_dict(), "clipped": split.clipped},
                    "classes": dict(split.classes),
                }
                for split in self.splits
            ],
            "findings": [
                {
                    "kind": group.kind.name,
                    "title": group.kind.title,
                    "severity": group.kind.severity,
                    "trainer": group.kind.action,
                    "effect": group.kind.effect,
                    "remedy": group.kind.remedy,
                    "count": group.count,
                    "offenders": [
                        {"split": f.split, "where": f.where, "detail": f.detail, "count": f.count}
                        for f in group.findings
                    ],
                }
                for group in self.groups()
            ],
        }

    def write_json(self, folder: Path) -> Path:
        """Write `data_report.json`; invalid Unicode is escaped."""
        path = folder / REPORT_JSON
        path.write_text(json.dumps(self.as_dict(), indent=1), encoding="ascii")
        return path


def _rated(group: Group, mostly_lost: Collection[str]) -> Group:
    """Turn a note about skipped boxes into a warning if most boxes of a split are."""
    is_most = any(found.split in mostly_lost for found in group.findings)
    if group.kind.name not in _NOTES_OF_BOXES or not is_most:
        return group
    return replace(group, kind=replace(group.kind, severity=Severity.WARNING))
