"""Names of files and classes that cause mistakes or problems in other programs."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ..data.findings import Finding

_PLAIN = re.compile(r"[A-Za-z0-9_.+()-]+( [A-Za-z0-9_.+()-]+)*")
_EXTENSION = re.compile(r"\.[^./]*$")

# Names in a folder by their folded form.
Listings = dict[Path, dict[str, str]]


def class_names(names: Sequence[str]) -> Iterator[Finding]:
    """Yield unusual class names, and names that are easily confused."""
    for name in names:
        if not _PLAIN.fullmatch(name):
            yield Finding("class_name_odd", repr(name), _describe_unusual(name))
    for group in _groups(names, lambda name: " ".join(_folded(name).split())):
        yield Finding("class_names_similar", ", ".join(map(repr, group)))


def _describe_unusual(name: str) -> str:
    """Return in a few words why a name is unusual."""
    tests = {
        "empty": not name.strip(),
        "extra spaces": name != " ".join(name.split()),
        "quotes": bool(re.search(r"[\"'`]", name)),
        "slashes": bool(re.search(r"[\\/]", name)),
        "angle brackets or an ampersand": bool(re.search(r"[<>&]", name)),
        "characters outside ASCII": not name.isascii(),
    }
    return ", ".join(text for text, holds in tests.items() if holds) or "punctuation"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _groups(names: Iterable[str], key: Callable[[str], str]) -> Iterator[list[str]]:
    """Group names with the same key; groups have two or more names."""
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        found.setdefault(key(name), []).append(name)
    return (group for group in found.values() if len(group) > 1)


def file_names(split: str, names: Sequence[str]) -> Iterator[Finding]:
    """Yield files of one split that are listed twice, or whose names differ only in form."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield Finding("listed_twice", name, split=split)
        seen.add(name)
    for group in _groups(names, lambda name: _folded(_EXTENSION.sub("", name))):
        yield Finding("similar_names", group[0], f"and {', '.join(group[1:])}", split=split)


def same_names(paths: Sequence[Path]) -> Iterator[Finding]:
    """Yield different files with the same name among those of all folders and splits."""
    by_name: dict[str, list[Path]] = {}
    for path in dict.fromkeys(paths):
        by_name.setdefault(path.name, []).append(path)
    for name, group in by_name.items():
        if len(group) > 1:
            yield Finding("same_name", name, f"in {_listed([str(p.parent) for p in group])}")


def _listed(folders: Sequence[str]) -> str:
    rest = len(folders) - 4
    return ", ".join(folders[:4]) + (f" and {rest} more" if rest > 0 else "")


def similar_file(name: str, folder: Path, listings: Listings) -> str:
    """Return an existing file whose name differs only in form; empty if there is none."""
    wanted = folder / name
    if wanted.parent not in listings:
        try:
            found = {_folded(path.name): path.name for path in wanted.parent.iterdir()}
        except (OSError, ValueError):
            found = {}
        listings[wanted.parent] = found
    return listings[wanted.parent].get(_folded(wanted.name), "")
