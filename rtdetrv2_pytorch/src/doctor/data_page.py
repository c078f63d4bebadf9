"""The data report as one HTML file, without scripts and network access; names are escaped."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..data.findings import Finding
from ..data.images.decoding import read_rgb
from ..data.images.pixel_range import PixelRange
from ..misc.drawing import box_shape, draw_shapes
from ..misc.errors import DatasetError
from ..misc.pages import jpeg_uri, render
from .data_report import REPORT_HTML, REPORT_JSON, DataReport

_TEMPLATE = Path(__file__).with_name("page.html")
_MAX_PICTURES = 8  # per kind
_PICTURE_SIDE = 240  # pixels
_MAX_BYTES = 4_000_000  # of all pictures
_MAX_LISTED = 100  # findings per kind, and classes
_MAX_BOXES = 100  # per picture
_COLOR = (255, 40, 90)


@dataclass(frozen=True)
class _Figure:
    """A picture in the page."""

    source: str  # data URI
    caption: str


def write_page(report: DataReport, folder: Path) -> Path:
    """Write `data_report.html` to an existing folder."""
    groups = report.groups()
    room = [_MAX_BYTES]
    page = render(
        _TEMPLATE,
        report=report,
        groups=groups,
        figures=[list(_figures(group.findings, room, report.pixel_range)) for group in groups],
        classes=_classes(report),
        listed=_MAX_LISTED,
        json_file=REPORT_JSON,
    )
    path = folder / REPORT_HTML
    path.write_text(page, encoding="utf-8")
    return path


def _classes(report: DataReport) -> list[tuple[str, list[int]]]:
    """Return the number of used boxes per class and split."""
    splits = [split for split in report.splits if split.classes]
    names = dict.fromkeys(name for split in splits for name in split.classes)
    return [(name, [split.classes.get(name, 0) for split in splits]) for name in names]


def _figures(
    findings: Sequence[Finding], room: list[int], pixel_range: PixelRange | None
) -> Iterator[_Figure]:
    """Yield the first pictures of a kind, up to the size limit of the page."""
    shown = 0
    for finding in findings:
        if finding.picture is None or shown >= _MAX_PICTURES or room[0] <= 0:
            continue
        source = _thumbnail(finding, pixel_range)
        if source:
            shown += 1
            room[0] -= len(source)
            yield _Figure(source, str(finding))


def _thumbnail(finding: Finding, pixel_range: PixelRange | None) -> str:
    """Return a small image with its boxes as a data URI; empty if it cannot be read."""
    assert finding.picture is not None
    try:
        path, size = finding.picture.path, finding.picture.size_wh
        image = Image.fromarray(read_rgb(path, size, pixel_range=pixel_range))
    except DatasetError:
        return ""
    size_wh = image.size
    image.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
    draw_shapes(image, (box_shape(box, _COLOR) for box in finding.boxes[:_MAX_BOXES]), size_wh)
    return jpeg_uri(image)
