"""The table of formats: detection by content, and reading."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from ...misc.errors import DatasetError
from . import coco, supervisely, voc, yolo
from .folders import unwrapped
from .source import DataSource, FormatName

# In the order of detection, the most explicit sign first. Each module has `LOOKED_FOR`,
# `recognize(folder)` and `read(folder)`.
FORMATS: Mapping[FormatName, ModuleType] = {
    "supervisely": supervisely,
    "coco": coco,
    "yolo": yolo,
    "voc": voc,
}


def detect_format(folder: Path, among: Sequence[FormatName] = tuple(FORMATS)) -> FormatName:
    """Detect the format of a data set, trying the given formats in their order.

    Raises:
        DatasetError: if it has none of these formats; the message lists the required files.
    """
    root = unwrapped(folder)
    for name in among:
        if FORMATS[name].recognize(root):
            return name
    looked_for = "; ".join(f"{name}: {FORMATS[name].LOOKED_FOR}" for name in among)
    raise DatasetError(f"{folder}: no data set recognized; looked for {looked_for}")


def read(folder: Path, format: FormatName | None = None) -> DataSource:
    """Read a data set; its format is detected by default.

    Raises:
        DatasetError: if nothing of it can be read.
    """
    source: DataSource = FORMATS[format or detect_format(folder)].read(unwrapped(folder))
    return source
