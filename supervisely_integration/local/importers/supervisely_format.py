"""A Supervisely project on disk: meta.json, and data sets of img/ and ann/, nested at will.

The SDK's reader is not used: it leaves out a whole data set, and only logs it, if one annotation
is missing or if the name of the data set ends in "img", "ann" or "meta".
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.misc.errors import DatasetError

from .decoding import Picture, read_picture
from .geometries import to_stored
from .source import (
    ANY_SHAPE,
    ImportItem,
    ImportSource,
    Ledger,
    UniqueNames,
    declared_size,
    is_image,
    make_annotation,
)

LOOKED_FOR = "meta.json with 'classes'"
_NESTED = "datasets"  # folder between a data set and its children
_PARTS = ("img", "ann")
_OF_THE_OLD_INSTANCE = frozenset(  # fields that mean nothing in another one
    {"id", "classId", "tagId", "entityId", "labelerLogin", "createdAt", "updatedAt"}
)


@dataclass(frozen=True)
class _Names:
    """What objects and tags may be called."""

    shapes: Mapping[str, str]  # of the classes
    tags: frozenset[str]


@dataclass(frozen=True)
class _Files:
    dataset: str
    image: Path
    annotation: Path


def recognise(folder: Path) -> bool:
    """Whether a folder looks like a project in this format."""
    return (folder / "meta.json").is_file()


def read(folder: Path) -> ImportSource:
    """Read a folder.

    An image whose annotation is missing or damaged is left out: it would be taught as one on
    which nothing is to be found.

    Raises:
        DatasetError: if meta.json cannot be used, or there is no data set.
    """
    ledger = Ledger()
    meta = _read_meta(folder / "meta.json", ledger)
    names = _Names(
        {c["title"]: c["shape"] for c in meta["classes"]},
        frozenset(t["name"] for t in meta["tags"]),
    )
    files = [f for path, name in _datasets(folder) for f in _files_of(path, name, ledger)]
    if not files:
        raise DatasetError(
            f"{folder}: no data set found; a project has folders with {' and '.join(_PARTS)} in "
            "them beside its meta.json"
        )
    items = _items(files, names, ledger)
    return ImportSource("supervisely", meta, items, len(files), ledger)


# Meta


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8-sig"))


def _read_meta(path: Path, ledger: Ledger) -> dict[str, Any]:
    try:
        content = _read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(
            f"{path}: cannot be read ({error}); download the project once more"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("classes"), list):
        raise DatasetError(f"{path}: has no list 'classes'; it is no meta of a Supervisely project")
    tags = content.get("tags")
    return {
        **content,
        "classes": _valid(content["classes"], ("title", "shape"), "class", ledger),
        "tags": _valid(tags if isinstance(tags, list) else [], ("name",), "tag", ledger),
        "projectType": "images",
    }


def _valid(
    entries: list[Any], keys: tuple[str, ...], kind: str, ledger: Ledger
) -> list[dict[str, Any]]:
    """Entries with these texts, the first of each name, without the ids of the old instance."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        is_complete = isinstance(entry, dict) and all(
            isinstance(entry.get(key), str) and entry[key] for key in keys
        )
        if not is_complete:
            ledger.note(f"meta.json: {str(entry)[:80]}", f"{kind} without {' or '.join(keys)}")
        elif entry[keys[0]] in found:
            ledger.note(f"meta.json: {entry[keys[0]]!r}", f"{kind} that is there already")
        else:
            found[entry[keys[0]]] = _without_ids(entry)
    return list(found.values())


# Data sets


def _datasets(folder: Path, parent: str = "") -> Iterator[tuple[Path, str]]:
    """Folders of data sets with their paths, children after their parents."""
    if not parent and all(_is_part(folder / part) for part in _PARTS):
        yield folder, folder.name  # a single data set with its meta beside it
    for path in _subfolders(folder):
        if not parent and path.name in _PARTS and _is_part(path):
            continue
        name = f"{parent}{path.name}"
        if any(_is_part(path / part) for part in _PARTS):
            yield path, name
        nested = path / _NESTED
        if nested.is_dir() and not any(_is_part(nested / part) for part in _PARTS):
            yield from _datasets(nested, f"{name}/")


def _is_part(path: Path) -> bool:
    """Whether a folder holds files of a data set, and is none itself that is called "img"."""
    return path.is_dir() and not any((path / part).is_dir() for part in _PARTS)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _plain_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def _files_of(folder: Path, dataset: str, ledger: Ledger) -> Iterator[_Files]:
    """Images with their annotation files; either may be missing."""
    annotations = {p.name for p in _plain_files(folder / "ann") if p.suffix.lower() == ".json"}
    for image in _plain_files(folder / "img"):
        if not is_image(image):
            ledger.note(f"{dataset}/{image.name}", "file in img that is no image")
            continue
        names = (f"{image.name}.json", f"{image.stem}.json")  # new and old style
        chosen = next((name for name in names if name in annotations), names[0])
        annotations.discard(chosen)
        yield _Files(dataset, image, folder / "ann" / chosen)
    for name in sorted(annotations):
        yield _Files(dataset, folder / "img" / name[: -len(".json")], folder / "ann" / name)


# Annotations


def _items(files: list[_Files], names: _Names, ledger: Ledger) -> Iterator[ImportItem]:
    taken = UniqueNames()
    for file in files:
        what = f"{file.dataset}/{file.image.name}"
        ledger.given_images += 1
        content: Mapping[str, Any] = {"objects": []}
        try:
            content = _read_annotation(file.annotation)
            ledger.given_objects += len(content["objects"])
            picture = read_picture(file.image)
            is_turned = picture.is_drawn_before_turning(declared_size(content.get("size")))
        except DatasetError as error:
            ledger.skip_image(what, str(error), objects=len(content["objects"]))
            continue
        annotation = _annotation(content, what, names, picture, ledger, is_turned=is_turned)
        name = taken.take(file.dataset, file.image.name)
        yield ImportItem(file.dataset, name, file.image, annotation)


def _read_annotation(path: Path) -> Mapping[str, Any]:
    try:
        content = _read_json(path)
    except FileNotFoundError as error:
        raise DatasetError("annotation file missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError("annotation file that cannot be read") from error
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
        raise DatasetError("annotation file without a list 'objects'")
    return content


def _annotation(
    content: Mapping[str, Any],
    what: str,
    names: _Names,
    picture: Picture,
    ledger: Ledger,
    *,
    is_turned: bool,
) -> dict[str, Any]:
    objects = []
    for number, figure in enumerate(content["objects"], start=1):
        try:
            checked = _object(figure, names, picture, is_turned=is_turned)
        except DatasetError as error:
            ledger.skip_object(f"{what}, object {number}", str(error))
            continue
        tags = _tags(checked.get("tags"), f"{what}, object {number}", names, ledger)
        objects.append({**_without_ids(checked), "tags": tags})
    return {
        **make_annotation(picture.size_wh, objects),
        "description": str(content.get("description") or ""),
        "tags": _tags(content.get("tags"), what, names, ledger),
    }


def _object(figure: Any, names: _Names, picture: Picture, *, is_turned: bool) -> Mapping[str, Any]:
    if not isinstance(figure, dict):
        raise DatasetError("object that is none")
    title = figure.get("classTitle")
    if not isinstance(title, str) or title not in names.shapes:
        raise DatasetError("object of an unknown class")
    shape = figure.get("geometryType") or figure.get("shape") or names.shapes[title]
    if not isinstance(shape, str):
        raise DatasetError("object without a shape")
    if names.shapes[title] not in (ANY_SHAPE, shape):
        raise DatasetError(f"{shape} of a class whose shape is {names.shapes[title]}")
    return to_stored({**figure, "geometryType": shape}, picture, is_turned=is_turned)


def _without_ids(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in _OF_THE_OLD_INSTANCE}


def _tags(tags: Any, what: str, names: _Names, ledger: Ledger) -> list[dict[str, Any]]:
    """Tags that the meta knows, each once."""
    found: dict[str, dict[str, Any]] = {}
    for tag in tags if isinstance(tags, list) else []:
        name = tag.get("name") if isinstance(tag, dict) else tag
        if not isinstance(name, str) or name not in names.tags:
            ledger.note(f"{what}: {str(name)[:80]}", "tag that meta.json does not have")
        elif name not in found:
            found[name] = _without_ids(tag) if isinstance(tag, dict) else {"name": name}
    return list(found.values())
