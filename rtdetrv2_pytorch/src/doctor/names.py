"""Names of files and classes that somebody, or some program, will stumble over."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ..data.findings import Finding, finding

_PLAIN = re.compile(r"[A-Za-z0-9_.+()-]+( [A-Za-z0-9_.+()-]+)*")
_EXTENSION = re.compile(r"\.[^./]*$")

# Names in a folder by their folded form.
Listings = dict[Path, dict[str, str]]


def class_names(names: Sequence[str]) -> Iterator[Finding]:
    """Odd class names, and those that only people take for one."""
    for name in names:
        if not _PLAIN.fullmatch(name):
            yield finding("class_name_odd", repr(name), _oddity(name))
    for group in _groups(names, lambda name: " ".join(_folded(name).split())):
        yield finding("class_names_similar", ", ".join(map(repr, group)))


def _oddity(name: str) -> str:
    """What is odd about a name, in a few words."""
    tests = {
        "empty": not name.strip(),
        "blanks at an end or in a row": name != " ".join(name.split()),
        "quotes": bool(re.search(r"[\"'`]", name)),
        "slashes": bool(re.search(r"[\\/]", name)),
        "angle brackets or an ampersand": bool(re.search(r"[<>&]", name)),
        "characters outside ASCII": not name.isascii(),
    }
    return ", ".join(text for text, holds in tests.items() if holds) or "punctuation"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _groups(names: Iterable[str], key: Callable[[str], str]) -> Iterator[list[str]]:
    """Names that have a key in common, in groups of two and more."""
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        found.setdefault(key(name), []).append(name)
    return (group for group in found.values() if len(group) > 1)


def file_names(split: str, names: Sequence[str]) -> Iterator[Finding]:
    """Files of one split that are listed twice, or whose names differ in form only."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield finding("listed_twice", name, split=split)
        seen.add(name)
    for group in _groups(names, lambda name: _folded(_EXTENSION.sub("", name))):
        yield finding("similar_names", group[0], f"and {', '.join(group[1:])}", split=split)


def same_names(paths: Sequence[Path]) -> Iterator[Finding]:
    """Different files of one name, in whichever folders and splits.

    Args:
        paths: of all images of all splits.
    """
    by_name: dict[str, list[Path]] = {}
    for path in dict.fromkeys(paths):
        by_name.setdefault(path.name, []).append(path)
    for name, group in by_name.items():
        if len(group) > 1:
            yield finding("same_name", name, f"in {_listed([str(p.parent) for p in group])}")


def _listed(folders: Sequence[str]) -> str:
    rest = len(folders) - 4
    return ", ".join(folders[:4]) + (f" and {rest} more" if rest > 0 else "")


def alike(name: str, folder: Path, listings: Listings) -> str:
    """A file that somebody meant by a name that is not there, or an empty text.

    Args:
        name: that is missing, relative to the folder.
        folder: of the images.
        listings: remembers what is in which folder.
    """
    wanted = folder / name
    if wanted.parent not in listings:
        try:
            found = {_folded(path.name): path.name for path in wanted.parent.iterdir()}
        except (OSError, ValueError):
            found = {}
        listings[wanted.parent] = found
    return listings[wanted.parent].get(_folded(wanted.name), "")
