"""Files of a data set folder: listing, names of splits, and paths that stay inside."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from ...misc.errors import DatasetError
from ..images.opening import is_hidden

_SPLIT_WORDS = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
SPLITS = tuple(_SPLIT_WORDS)


def split_of(*texts: str) -> str | None:
    """Return "train", "val" or "test" from the first text that contains such a word."""
    for text in texts:
        words = re.findall(r"[^\W\d_]+", text.lower())
        for split, names in _SPLIT_WORDS.items():
            if any(word in names for word in words):
                return split
    return None


def inside(folder: Path, entry: str) -> Path | None:
    """Return the file that an entry of a list refers to, or None if it is outside the folder."""
    parts: list[str] = []
    for part in Path(entry.replace("\\", "/")).parts:
        if part == ".." and parts:
            parts.pop()
        elif part == ".." or Path(part).is_absolute():
            return None
        else:
            parts.append(part)
    return folder.joinpath(*parts)


def list_files(folder: Path, depth: int = 8) -> Iterator[Path]:
    """Yield files below a folder by name; of hidden files, only images."""
    if depth < 0 or not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name == "__MACOSX" or (entry.is_dir() and entry.name.startswith(".")):
            continue
        if entry.is_dir():
            yield from list_files(folder / entry.name, depth - 1)
        elif entry.is_file() and not is_hidden(Path(entry.name)):
            yield folder / entry.name


def relative(path: Path, folder: Path) -> str:
    """Return a path for messages: relative to the folder, or only the file name outside it."""
    return path.relative_to(folder).as_posix() if folder in path.parents else path.name


def read_lines(path: Path) -> list[str]:
    """Return the non-empty lines of a text file; none if it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return []
    return [line.strip() for line in text.splitlines() if line.strip()]


def has_byte_order_mark(path: Path) -> bool:
    """Return whether a text file begins with a UTF-8 byte order mark."""
    try:
        with path.open("rb") as file:
            return file.read(3) == b"\xef\xbb\xbf"
    except OSError:
        return False


def unwrapped(folder: Path) -> Path:
    """Return the folder, or its only sub-folder: archives often wrap their contents in one.

    Raises:
        DatasetError: if the folder does not exist.
    """
    if not folder.is_dir():
        what = "is a file; unpack it and give the folder" if folder.exists() else "no such folder"
        raise DatasetError(f"{folder}: {what}")
    for _ in range(2):
        entries = [p for p in folder.iterdir() if not p.name.startswith((".", "__MACOSX"))]
        if len(entries) != 1 or not entries[0].is_dir():
            break
        folder = entries[0]
    return folder


def check_contained(folder: Path) -> None:
    """Reject links to files outside the folder, links to folders, pipes and devices.

    Raises:
        DatasetError: naming the first one.
    """
    root = folder.resolve()
    for parent, folders, files in os.walk(root):
        for name in folders:
            if Path(parent, name).is_symlink():
                raise DatasetError(
                    f"{Path(parent, name)}: links to a folder are not followed; put the folder "
                    "itself there"
                )
        for name in files:
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode) and not Path(os.path.realpath(path)).is_relative_to(root):
                raise DatasetError(
                    f"{path}: links out of the folder are not followed; put the file itself there"
                )
            if not stat.S_ISLNK(mode) and not stat.S_ISREG(mode):
                raise DatasetError(f"{path}: is a pipe or device; remove it")
