"""Findings: problems of a data set, collected while it is read, converted or examined."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path

from ..misc.errors import DatasetError
from ..misc.text import counted, printable
from .finding_kinds import KINDS, Kind
from .severity import Action

logger = logging.getLogger(__name__)

Box = tuple[float, float, float, float]

_NUM_EXAMPLES = 3


@dataclass(frozen=True)
class Illustration:
    """An image file that the report may show."""

    path: Path
    size_wh: tuple[int, int] | None = None  # as the trainer reads it, if it uses the image


@dataclass(frozen=True)
class Finding:
    """One problem of one file, image, object or class."""

    kind_name: str
    where: str  # file, image or class
    detail: str = ""
    _: KW_ONLY
    split: str = ""  # empty: of no split, or of several
    picture: Illustration | None = None
    boxes: Sequence[Box] = ()  # to draw on it: xyxy in pixels of the image as the trainer reads it
    count: int = 1  # number of boxes, where the image has several
    lost_images: int = 0
    lost_objects: int = 0

    @property
    def kind(self) -> Kind:
        """Title, severity, effect and remedy."""
        return KINDS[self.kind_name]

    def __str__(self) -> str:
        split = f"{self.split}: " if self.split else ""
        return f"{split}{self.where}{f' ({self.detail})' if self.detail else ''}"


class UnusableError(DatasetError):
    """An image or object that cannot be used, with the name of a kind of finding."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(kind, detail)  # both, so that the error can be pickled
        self.kind = kind
        self.detail = detail

    def __str__(self) -> str:
        return self.detail or KINDS[self.kind].title


@dataclass(frozen=True)
class Group:
    """All findings of one kind."""

    kind: Kind
    findings: Sequence[Finding]

    @property
    def count(self) -> int:
        """Number of images, files, classes or boxes."""
        return sum(finding.count for finding in self.findings)

    @property
    def examples(self) -> str:
        """The first findings, for one line."""
        shown = [str(finding) for finding in self.findings[:_NUM_EXAMPLES]]
        rest = len(self.findings) - len(shown)
        return printable("; ".join(shown) + (f"; and {rest} more" if rest else ""))

    def __str__(self) -> str:
        lost = sum(finding.lost_objects for finding in self.findings if finding.lost_images)
        with_them = f" with {counted(lost, 'object')}" if lost else ""
        return f"{self.kind.action}: {self.kind.title} ({self.count}{with_them}): {self.examples}"


def grouped(findings: Iterable[Finding]) -> list[Group]:
    """Group findings by kind, in the order in which the kinds occur."""
    by_kind: dict[str, list[Finding]] = {}
    for found in findings:
        by_kind.setdefault(found.kind_name, []).append(found)
    return [Group(KINDS[name], group) for name, group in by_kind.items()]


class Findings:
    """Collects findings, and counts images and objects.

    Args:
        split: of findings without a split.
    """

    def __init__(self, split: str = "") -> None:
        self.split = split
        self.items: list[Finding] = []
        self.given_images = 0
        self.given_objects = 0

    def add(self, finding: Finding) -> None:
        """Add a finding; it gets the split of the collection if it has none."""
        self.items.append(finding if finding.split else replace(finding, split=self.split))

    def skip_image(
        self, error: UnusableError, where: str, path: Path | None, *, split: str, objects: int = 0
    ) -> None:
        """Add an image that cannot be used, with the number of objects that are lost with it."""
        self.add(
            Finding(
                error.kind,
                where,
                error.detail,
                split=split,
                picture=None if path is None else Illustration(path),
                lost_images=1,
                lost_objects=objects,
            )
        )

    def skip_unlearnable(
        self, where: str, objects: int, path: Path | None, *, split: str = ""
    ) -> None:
        """Add an image of whose objects none can be used; they are findings of their own."""
        error = UnusableError("objects_unusable", counted(objects, "object"))
        self.skip_image(error, where, path, split=split)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def lost_images(self) -> int:
        """Number of images that cannot be used."""
        return sum(finding.lost_images for finding in self.items)

    @property
    def lost_objects(self) -> int:
        """Number of objects that cannot be used, those of lost images included."""
        return sum(finding.lost_objects for finding in self.items)

    def counts(self) -> dict[str, int]:
        """Number of findings by name of their kind."""
        return {group.kind.name: len(group.findings) for group in grouped(self.items)}

    def log(self, source: str) -> None:
        """Warn once per kind of skipped data in a file, with the first names."""
        for group in grouped(self.items):
            if group.kind.action is Action.SKIPS:
                logger.warning("%s: %s", source, group)
