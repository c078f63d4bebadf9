"""Which format a folder has, and the reader for it."""

from pathlib import Path
from typing import get_args

from rtdetrv2_pytorch.src.misc.errors import DatasetError

from . import coco_format, supervisely_format, voc_format, yolo_format
from .source import FormatName, ImportSource

# The most telling sign first: a folder of many things is what its most explicit file says.
_FORMATS = {
    "supervisely": supervisely_format,
    "yolo": yolo_format,
    "voc": voc_format,
    "coco": coco_format,
}
_NAMES: tuple[FormatName, ...] = get_args(FormatName)


def detect_format(folder: Path) -> FormatName:
    """The format of a data set.

    Args:
        folder: of the data set.

    Raises:
        DatasetError: if it is none of the four; the message says what was looked for.
    """
    for name in _NAMES:
        if _FORMATS[name].recognise(_unwrapped(_existing(folder))):
            return name
    looked_for = "; ".join(f"{name}: {_FORMATS[name].LOOKED_FOR}" for name in _NAMES)
    raise DatasetError(f"{folder}: no data set recognised; looked for {looked_for}")


def read(folder: Path, format: FormatName | None = None) -> ImportSource:
    """Read a data set, item by item.

    Args:
        folder: of the data set.
        format: of the data set; default: the one it looks like.

    Raises:
        DatasetError: if nothing of it can be read.
    """
    chosen = format or detect_format(folder)
    if chosen not in _FORMATS:
        raise DatasetError(f"format {chosen!r} is unknown; choose one of {', '.join(_NAMES)}")
    return _FORMATS[chosen].read(_unwrapped(_existing(folder)))


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        what = "is a file; unpack it and give the folder" if folder.exists() else "no such folder"
        raise DatasetError(f"{folder}: {what}")
    return folder


def _unwrapped(folder: Path) -> Path:
    """The folder itself, or the only one in it: archives often have one around their contents."""
    for _ in range(2):
        entries = [p for p in folder.iterdir() if not p.name.startswith((".", "__MACOSX"))]
        if len(entries) != 1 or not entries[0].is_dir():
            break
        folder = entries[0]
    return folder
