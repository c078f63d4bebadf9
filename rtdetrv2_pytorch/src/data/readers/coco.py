"""COCO format: JSON annotation files, with their images anywhere in the folder."""

import mmap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from ...misc.errors import DatasetError
from ...misc.text import counted
from ..categories import CategoryId, CategoryTable
from ..findings import Finding, Findings, UnusableError
from ..split_names import PARTS, Part, split_of
from .coco_json import (
    LISTS,
    Entry,
    group_annotations,
    image_entries,
    is_crowd,
    make_images,
    read_categories,
    read_coco_json,
    used_ids,
)
from .folders import Tree, folder_of
from .source import RECTANGLE, AnnotationFile, DataSource, SourceImage, shorten

LOOKED_FOR = "a .json file with the lists images, annotations and categories"
_SUPERVISELY_FOLDERS = ("ann", "img_info")


@dataclass(frozen=True)
class _File:
    """An annotation file whose content can be used."""

    name: str  # path relative to the root
    path: Path
    part: Part | None
    table: CategoryTable
    used: frozenset[str]  # classes with objects
    parents: frozenset[str]  # categories of Roboflow above the classes, without objects
    base: str  # folder that its file names are relative to
    images: Mapping[CategoryId, str | UnusableError]  # paths relative to the root
    is_plain: bool  # whether all images are at `base` / their file name
    has_crowds: bool


def recognize(tree: Tree) -> bool:
    """Return whether a folder looks like a data set in this format."""
    return bool(_annotation_files(tree))


def read(tree: Tree) -> DataSource:
    """Read all annotation files of a folder.

    Files named after one split belong together.

    Raises:
        DatasetError: if no annotation file can be used, or several of a split list the same image.
    """
    findings = Findings()
    files = [
        file
        for name in _annotation_files(tree)
        if (file := _read_file(tree, name, findings)) is not None
    ]
    if not files:
        seen = "; ".join(map(str, findings.items[:3]))
        raise DatasetError(
            f"{tree.root}: no usable COCO annotation file; looked for {LOOKED_FOR}"
            + (f" ({seen})" if seen else "")
        )
    files.sort(key=lambda file: len(PARTS) if file.part is None else PARTS.index(file.part))
    _check_disjoint(files)
    groups = _group_names(files)
    classes = dict.fromkeys((name for file in files for name in file.table.names), RECTANGLE)
    for name in sorted(frozenset().union(*(file.parents for file in files)) - classes.keys()):
        findings.add(Finding("class_left_out", name, "parent category of Roboflow"))
    return DataSource(
        "coco",
        classes,
        _images(tree, files, groups, findings),
        {group: len(file.images) for group, file in zip(groups, files, strict=True)},
        findings,
        {path for file in files for path in file.images.values() if isinstance(path, str)},
        frozenset().union(*(file.used for file in files)),
        {group: file.table.names for group, file in zip(groups, files, strict=True)},
        {
            group: AnnotationFile(file.path, tree.root / file.base)
            for group, file in zip(groups, files, strict=True)
            if file.is_plain
        },
        has_crowds=any(file.has_crowds for file in files),
    )


# Annotation files


def _annotation_files(tree: Tree) -> list[str]:
    """Return files that look like annotations; only those named "instances" if there are any.

    Others hold captions or keypoints of the same images.
    """
    names = [
        name
        for name in tree.with_suffix(".json")
        if Path(name).parent.name not in _SUPERVISELY_FOLDERS
        and not Path(name).name.startswith("captions")
        and _looks_like_coco(tree, name)
    ]
    return [name for name in names if "instances" in Path(name).name] or names


def _looks_like_coco(tree: Tree, name: str) -> bool:
    """Return whether a file names two of the lists, or one if its own name says COCO."""
    try:
        with (
            tree.files[name].open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text,
        ):
            found = sum(text.find(f'"{key}"'.encode()) >= 0 for key in LISTS)
    except (OSError, ValueError):  # unreadable, or empty
        return False
    own_name = Path(name).name.lower()
    return found >= (1 if "instances" in own_name or "coco" in own_name else 2)


def _read_file(tree: Tree, name: str, findings: Findings) -> _File | None:
    path = tree.files[name]
    try:
        content = read_coco_json(path)
        for category in content["categories"]:
            if not _is_category(category):
                findings.add(Finding("class_entry_malformed", name, shorten(category)))
        content["categories"] = list(filter(_is_category, content["categories"]))
        ids = used_ids(content)
        table = read_categories(content, name, ids)
    except DatasetError as error:
        findings.add(Finding("annotation_malformed", name, str(error).removeprefix(f"{path}: ")))
        return None
    class_of = dict(zip(table.ids, table.names, strict=True))
    used = frozenset(class_of[id_] for id_ in ids if id_ in class_of)
    parents = frozenset(str(each["name"]) for each in content["categories"]) - {*table.names}
    folders = folder_of(name).split("/")
    part = split_of(path.stem, *reversed(folders))
    entries = image_entries(content, Findings())
    names = [entry["file_name"] for entry in entries.values()]
    home = folder_of(name)
    base = tree.locate(names, home, part or "")
    images: dict[CategoryId, str | UnusableError] = {}
    prefix = f"{base}/" if base else ""
    is_plain = True
    for image_id, entry in entries.items():
        exact = prefix + entry["file_name"]
        if exact in tree.files:
            images[image_id] = exact
            continue
        try:
            images[image_id] = tree.find_image(entry["file_name"], base, home, "")
            is_plain = False
        except UnusableError as error:
            images[image_id] = error
            is_plain = is_plain and error.kind == "missing_image"
    has_images = any(isinstance(found, str) for found in images.values())
    is_plain = is_plain and has_images
    crowds = any(isinstance(each, dict) and is_crowd(each) for each in content["annotations"])
    return _File(name, path, part, table, used, parents, base, images, is_plain, crowds)


def _is_category(entry: Any) -> bool:
    return isinstance(entry, dict) and "id" in entry and bool(str(entry.get("name") or "").strip())


def _check_disjoint(files: Sequence[_File]) -> None:
    """Check that no image is listed by several files of the same split.

    Raises:
        DatasetError: naming both files.
    """
    for one, other in combinations(files, 2):
        if one.part != other.part:
            continue
        both = {p for p in one.images.values() if isinstance(p, str)}
        both &= {p for p in other.images.values() if isinstance(p, str)}
        if both:
            what = f"of the {one.part} split" if one.part else "without the name of a split"
            raise DatasetError(
                f"{one.name} and {other.name}: both files {what} list {min(both)} and "
                f"{counted(len(both) - 1, 'other image')}; remove one of the files, or merge them"
            )


def _group_names(files: Sequence[_File]) -> list[str]:
    """Name each file after its split, or by its file name if several have the same split."""
    parts = [file.part for file in files]
    taken: Counter[str] = Counter()
    names = []
    for file in files:
        name = file.part if file.part and parts.count(file.part) == 1 else _stem(file.path)
        taken[name] += 1
        names.append(name if taken[name] == 1 else f"{name}_{taken[name]}")
    return names


def _stem(path: Path) -> str:
    stem = path.stem.removeprefix("instances_").removesuffix(".coco").strip("_")
    return path.parent.name if stem in ("", "annotations") else stem


# Images


def _images(
    tree: Tree, files: Sequence[_File], groups: Sequence[str], findings: Findings
) -> Iterator[SourceImage]:
    for file, group in zip(files, groups, strict=True):
        content = read_coco_json(file.path)
        entries: dict[CategoryId, Entry] = image_entries(content, findings, split=group)
        annotations = group_annotations(content, entries, findings, split=group)
        del content
        paths: dict[CategoryId, Path] = {}
        for image_id, found in file.images.items():
            entry = entries[image_id]
            if isinstance(found, str):
                paths[image_id] = tree.files[found]
            else:
                lost = len(annotations.pop(image_id, ()))
                findings.skip_image(found, entry["file_name"], None, split=group, objects=lost)
        class_of = dict(zip(file.table.ids, file.table.names, strict=True))
        usable = {image_id: entries[image_id] for image_id in paths}
        yield from make_images(usable, annotations, class_of, paths, findings, split=group)
