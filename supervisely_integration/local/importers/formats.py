"""Which format a folder has, and the reader for it."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from rtdetrv2_pytorch.src.misc.errors import DatasetError

from . import coco_format, supervisely_format, voc_format, yolo_format
from .source import FormatName, ImportSource

# The most telling sign first: a folder of many things is what its most explicit file says.
_FORMATS: Mapping[FormatName, ModuleType] = {
    "supervisely": supervisely_format,
    "coco": coco_format,
    "yolo": yolo_format,
    "voc": voc_format,
}


def detect_format(folder: Path) -> FormatName:
    """The format of a data set.

    Args:
        folder: of the data set.

    Raises:
        DatasetError: if it is none of the four; the message says what was looked for.
    """
    root = _unwrapped(_existing(folder))
    for name, reader in _FORMATS.items():
        if reader.recognise(root):
            return name
    looked_for = "; ".join(f"{name}: {reader.LOOKED_FOR}" for name, reader in _FORMATS.items())
    raise DatasetError(f"{folder}: no data set recognised; looked for {looked_for}")


def read(folder: Path, format: FormatName | None = None) -> ImportSource:
    """Read a data set, item by item.

    Args:
        folder: of the data set.
        format: of the data set; default: the one it looks like.

    Raises:
        DatasetError: if nothing of it can be read, or it holds links that lead out of it.
    """
    _refuse_ways_out(_existing(folder))
    return _FORMATS[format or detect_format(folder)].read(_unwrapped(folder))


def _refuse_ways_out(folder: Path) -> None:
    """A folder from elsewhere holds its own files: no links to those of this machine, no pipes.

    Raises:
        DatasetError: naming the first one.
    """
    root = folder.resolve()
    for parent, folders, files in os.walk(root):
        for name in folders:
            if Path(parent, name).is_symlink():
                raise DatasetError(
                    f"{Path(parent, name)}: a link to a folder, which is not followed; put the "
                    "folder itself there"
                )
        for name in files:
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode) and not Path(os.path.realpath(path)).is_relative_to(root):
                raise DatasetError(
                    f"{path}: a link out of the folder, which is not followed; put the file itself "
                    "there"
                )
            if not stat.S_ISLNK(mode) and not stat.S_ISREG(mode):
                raise DatasetError(f"{path}: a pipe or device and no file; remove it")


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
