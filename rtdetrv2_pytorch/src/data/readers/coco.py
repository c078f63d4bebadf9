"""COCO format: JSON annotation files, with their images anywhere in the folder."""

import mmap
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...misc.errors import DatasetError
from ..categories import CategoryTable
from ..findings import Finding, Findings
from .coco_json import (
    LISTS,
    group_annotations,
    image_entries,
    make_images,
    read_categories,
    read_coco_json,
)
from .folders import list_files, split_of
from .source import RECTANGLE, DataSource, SourceImage, shorten

LOOKED_FOR = "a .json file with the lists images, annotations and categories"
_DEPTH = 3  # levels of folders that are searched for annotation files
_NUM_PROBES = 100  # images of a file that locate its image folder
_SUPERVISELY_FOLDERS = ("ann", "img_info")


def recognize(folder: Path) -> bool:
    """Return whether a folder looks like a data set in this format."""
    return any(map(_looks_like_coco, _preferred(annotation_files(folder))))


def read(folder: Path) -> DataSource:
    """Read all annotation files of a folder; each is one split.

    Raises:
        DatasetError: if no annotation file can be used.
    """
    findings = Findings()
    files = list(_files(folder, findings))
    if not files:
        seen = "; ".join(map(str, findings.items[:3]))
        raise DatasetError(
            f"{folder}: no usable COCO annotation file; looked for {LOOKED_FOR}"
            + (f" ({seen})" if seen else "")
        )
    names = dict.fromkeys(name for file in files for name in file.table.names)
    return DataSource(
        "coco",
        dict.fromkeys(names, RECTANGLE),
        _images(folder, files, findings),
        sum(file.num_images for file in files),
        findings,
    )


# Annotation files


def annotation_files(folder: Path) -> list[Path]:
    """Return JSON files that may hold annotations, those named "instances" first."""
    found = [
        path
        for path in list_files(folder, _DEPTH)
        if path.suffix.lower() == ".json" and path.parent.name not in _SUPERVISELY_FOLDERS
    ]
    return sorted(found, key=lambda p: ("instances" not in p.name, len(p.parts), str(p)))


def split_of_file(path: Path, folder: Path) -> str | None:
    """Return the split that a file is named after, or else its folder within the data set."""
    return split_of(path.stem, path.parent.name if path.parent != folder else "")


@dataclass(frozen=True)
class _File:
    path: Path
    split: str
    table: CategoryTable
    num_images: int


def _preferred(paths: list[Path]) -> list[Path]:
    """Return the files named "instances" if there are any: others hold captions or keypoints."""
    return [path for path in paths if "instances" in path.name] or paths


def _looks_like_coco(path: Path) -> bool:
    """Return whether a file names two of the lists, or one if its own name says COCO."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            found = sum(text.find(f'"{key}"'.encode()) >= 0 for key in LISTS)
    except (OSError, ValueError):  # unreadable, or empty
        return False
    return found >= (1 if "instances" in path.name or "coco" in path.name.lower() else 2)


def _files(folder: Path, findings: Findings) -> Iterator[_File]:
    paths = [path for path in _preferred(annotation_files(folder)) if _looks_like_coco(path)]
    for path, split in zip(paths, _split_names(paths, folder), strict=True):
        where = path.relative_to(folder).as_posix()
        try:
            content = read_coco_json(path)
            for category in content["categories"]:
                if not _is_category(category):
                    findings.add(Finding("class_entry_malformed", where, shorten(category)))
            content["categories"] = list(filter(_is_category, content["categories"]))
            table = read_categories(content, where)
        except DatasetError as error:
            findings.add(
                Finding("annotation_malformed", where, str(error).removeprefix(f"{path}: "))
            )
        else:
            yield _File(path, split, table, len(content["images"]))


def _is_category(entry: Any) -> bool:
    return isinstance(entry, dict) and "id" in entry and bool(str(entry.get("name") or "").strip())


def _split_names(paths: Sequence[Path], folder: Path) -> list[str]:
    """Name each file after its split, or by its file name if several have the same split."""
    splits = [split_of_file(path, folder) for path in paths]
    taken: Counter[str] = Counter()
    names = []
    for path, split in zip(paths, splits, strict=True):
        name = split if split and splits.count(split) == 1 else _stem(path)
        taken[name] += 1
        names.append(name if taken[name] == 1 else f"{name}_{taken[name]}")
    return names


def _stem(path: Path) -> str:
    stem = path.stem.removeprefix("instances_").removesuffix(".coco").strip("_")
    return path.parent.name if stem in ("", "annotations") else stem


# Images


class ImageIndex:
    """Locates the images of annotation files in a data set."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._by_name: dict[str, list[tuple[str, ...]]] = {}
        for path in list_files(folder):
            parts = path.relative_to(folder).parts
            self._by_name.setdefault(parts[-1], []).append(parts)

    def locate(self, names: Sequence[str], ann_file: Path, split: str) -> tuple[Path, int]:
        """Return the folder that file names are relative to, and how many probes it contains.

        Of several folders with equally many, the folder of the annotation file is preferred, then
        one named after the split, then the one closest to the top.
        """
        home = ann_file.parent.relative_to(self._folder).parts
        hits: Counter[tuple[str, ...]] = Counter()
        for name in names[:: max(1, len(names) // _NUM_PROBES)][:_NUM_PROBES]:
            wanted = PurePosixPath(name.replace("\\", "/")).parts
            if ".." in wanted:
                path = os.path.normpath("/".join((*home, *wanted)))
                hits[home] += tuple(path.split("/")) in self._by_name.get(wanted[-1], ())
                continue
            for parts in self._by_name.get(wanted[-1] if wanted else "", ()):
                if parts[-len(wanted) :] == wanted:
                    hits[parts[: -len(wanted)]] += 1

        def rank(base: tuple[str, ...]) -> tuple[int, bool, bool, int]:
            is_named = split_of(*reversed(base)) == split or split in base
            return hits[base], base == home, is_named, -len(base)

        best = max(sorted(hits), key=rank, default=home)
        return self._folder.joinpath(*best), hits[best]


def _images(folder: Path, files: Sequence[_File], findings: Findings) -> Iterator[SourceImage]:
    index = ImageIndex(folder)
    for file in files:
        content = read_coco_json(file.path)
        entries = image_entries(content, findings, split=file.split)
        entries = {
            image_id: {**entry, "file_name": entry["file_name"].replace("\\", "/")}
            for image_id, entry in entries.items()
        }
        names = [entry["file_name"] for entry in entries.values()]
        base, _ = index.locate(names, file.path, file.split)
        annotations = group_annotations(content, entries, findings, split=file.split)
        del content
        class_of = dict(zip(file.table.ids, file.table.names, strict=True))
        yield from make_images(entries, annotations, class_of, base, findings, split=file.split)
