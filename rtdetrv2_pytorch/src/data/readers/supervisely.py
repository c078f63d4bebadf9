"""Supervisely format: meta.json, and datasets of img/ and ann/, nested at any depth.

The SDK's reader skips a whole dataset, and only logs it, if one annotation is missing or if the
name of the dataset ends in "img", "ann" or "meta".
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...misc.errors import DatasetError
from ..findings import Finding, Findings, UnusableError
from ..images.opening import is_hidden, is_image
from .folders import Tree
from .masks import MASKS, mask_box
from .source import (
    DataSource,
    Point,
    SourceImage,
    SourceObject,
    declared_size,
    rectangle_problem,
    shorten,
)

LOOKED_FOR = "meta.json with 'classes'"
NESTED = "datasets"  # folder between a dataset and its children
PARTS = ("img", "ann")
CROWD_TAG = "iscrowd"  # of objects that are crowd regions, as in COCO
_WITH_POINTS = ("rectangle", "polygon", "line")


@dataclass(frozen=True)
class ImageFiles:
    """An image with its annotation file; either may be missing."""

    image: Path
    annotation: Path


def recognize(tree: Tree) -> bool:
    """Return whether a folder looks like a project in this format."""
    return '"classes"' in tree.text("meta.json")


def read(tree: Tree) -> DataSource:
    """Read a folder.

    An image whose annotation is missing or damaged is skipped: as background it would train
    the model to ignore its objects.

    Raises:
        DatasetError: if meta.json is invalid, or there is no dataset.
    """
    findings, folder = Findings(), tree.root
    meta = _read_meta(folder / "meta.json", findings)
    files = []
    for path in dataset_folders(folder):
        name = dataset_path(path, folder)
        for item in image_files(path):
            if item.image.exists() and not is_image(item.image):
                findings.add(Finding("not_a_file", item.image.name, "not an image", split=name))
            else:
                files.append((name, item))
    if not files:
        raise DatasetError(
            f"{folder}: no dataset found; a project has meta.json and folders that "
            f"contain {' and '.join(PARTS)}"
        )
    classes = {entry["title"]: entry["shape"] for entry in meta["classes"]}
    return DataSource(
        "supervisely",
        classes,
        _images(files, tree, findings),
        Counter(name for name, _ in files),
        findings,
        {item.image.relative_to(folder).as_posix() for _, item in files},
        _used_classes(files, tree),
        meta=meta,
    )


# Meta


def _read_meta(path: Path, findings: Findings) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(
            f"{path}: cannot be read ({error}); download the project again"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("classes"), list):
        raise DatasetError(f"{path}: has no list 'classes'; it is not a Supervisely project meta")
    tags = content.get("tags")
    return {
        **content,
        "classes": _valid(content["classes"], ("title", "shape"), "class", findings),
        "tags": _valid(tags if isinstance(tags, list) else [], ("name",), "tag", findings),
        "projectType": "images",
    }


def _valid(
    entries: list[Any], keys: tuple[str, ...], kind: str, findings: Findings
) -> list[dict[str, Any]]:
    """Return entries that have these texts, the first of each name."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        is_complete = isinstance(entry, dict) and all(
            isinstance(entry.get(key), str) and entry[key] for key in keys
        )
        if not is_complete:
            detail = f"{kind} without {' or '.join(keys)}: {shorten(entry)}"
            findings.add(Finding("class_entry_malformed", "meta.json", detail))
        elif entry[keys[0]] in found:
            detail = f"{kind} {entry[keys[0]]!r} occurs more than once"
            findings.add(Finding("class_entry_malformed", "meta.json", detail))
        else:
            found[entry[keys[0]]] = entry
    return list(found.values())


# Datasets


def dataset_folders(folder: Path) -> list[Path]:
    """Return folders with images and annotations, at any depth; `folder` may be one itself.

    A folder with only one of the two is a dataset, too: the download of the other has failed.
    """
    found = []
    pending = [folder]
    while pending:
        current = pending.pop()
        children = {path.name: path for path in _subfolders(current)}
        parts = [children[n] for n in PARTS if n in children and _is_part(children[n])]
        if len(parts) == len(PARTS) or any(map(files_in, parts)):
            found.append(current)
            if current != folder:
                children = {name: path for name, path in children.items() if name == NESTED}
            children = {name: path for name, path in children.items() if path not in parts}
        pending += children.values()
    return sorted(found)


def dataset_path(folder: Path, project: Path) -> str:
    """Return the path of a dataset in its project, "parent/child"."""
    parts = folder.relative_to(project).parts
    # Every second part of a nested path is the folder between parent and child.
    named = [part for i, part in enumerate(parts) if not (i % 2 and part == NESTED)]
    return "/".join(named) or project.name


def _is_part(path: Path) -> bool:
    """Return whether a folder holds files of a dataset, and is not a dataset named "img"."""
    return not any((path / part).is_dir() for part in PARTS)


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]


def files_in(folder: Path) -> list[Path]:
    """Return files in a folder by name; of hidden ones, only images and their annotations."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_file() and not _is_hidden(p))


def _is_hidden(path: Path) -> bool:
    is_annotation = path.suffix.lower() == ".json"
    return is_hidden(path) and not (is_annotation and is_image(path.with_suffix("")))


def image_files(folder: Path) -> Iterator[ImageFiles]:
    """Yield the images of a dataset with their annotation files; either may be missing."""
    annotations = {p.name for p in files_in(folder / "ann") if p.suffix.lower() == ".json"}
    for image in files_in(folder / "img"):
        names = (f"{image.name}.json", f"{image.stem}.json")  # new and old style
        chosen = next((each for each in names if each in annotations), names[0])
        annotations.discard(chosen)
        yield ImageFiles(image, folder / "ann" / chosen)
    for name in sorted(annotations):
        yield ImageFiles(folder / "img" / name.removesuffix(".json"), folder / "ann" / name)


# Annotations


def read_annotation(path: Path) -> Mapping[str, Any]:
    """Read an annotation file.

    Raises:
        UnusableError: if it is missing, unreadable, or has no list of objects.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UnusableError("unlisted_image", f"{path.name} is missing") from error
    except UnicodeDecodeError as error:
        raise UnusableError("annotation_malformed", f"is not in UTF-8 ({error.reason})") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UnusableError("annotation_malformed", f"cannot be read ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
        raise UnusableError("annotation_malformed", "has no list 'objects'")
    return content


def annotated_size(content: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the (width, height) that an annotation declares, if it is valid."""
    size = content.get("size")
    return declared_size(size.get("width"), size.get("height")) if isinstance(size, dict) else None


def _images(
    files: list[tuple[str, ImageFiles]], tree: Tree, findings: Findings
) -> Iterator[SourceImage]:
    for dataset, item in files:
        findings.given_images += 1
        try:
            _check_link(item.annotation, tree)
            content = read_annotation(item.annotation)
        except UnusableError as error:
            findings.skip_image(error, item.image.name, item.image, split=dataset)
            continue
        objects, size_wh = content["objects"], annotated_size(content)
        findings.given_objects += len(objects)
        yield SourceImage(
            dataset,
            item.image.name,
            item.image,
            [_object(number, figure, size_wh) for number, figure in enumerate(objects, start=1)],
            size_wh,
            annotation=content,
        )


def _used_classes(files: list[tuple[str, ImageFiles]], tree: Tree) -> set[str]:
    """Return the classes with objects."""
    used = set()
    for _, item in files:
        with contextlib.suppress(UnusableError):
            _check_link(item.annotation, tree)
            objects = read_annotation(item.annotation)["objects"]
            used |= {str(each.get("classTitle")) for each in objects if isinstance(each, dict)}
    return used


def _check_link(annotation: Path, tree: Tree) -> None:
    """Check that an annotation file is not a link out of the data set.

    Raises:
        UnusableError: if it is one.
    """
    name = annotation.relative_to(tree.root).as_posix()
    if name not in tree.files and annotation.is_file():
        raise UnusableError("path_outside_folder", f"{annotation.name} is a link")


def _object(number: int, figure: Any, size_wh: tuple[int, int] | None) -> SourceObject:
    """Read an object with points or a mask as its box; other shapes need the SDK."""
    label = f"object {number}"
    if not isinstance(figure, dict):
        return SourceObject(label, "", problem="annotation_malformed", detail=shorten(figure))
    name = str(figure.get("classTitle"))
    shape = figure.get("geometryType") or figure.get("shape") or "unknown shape"
    if shape not in (*_WITH_POINTS, *MASKS):
        return SourceObject(label, name, problem="unknown_geometry", detail=str(shape))
    try:
        points = mask_box(figure, size_wh or (0, 0)) if shape in MASKS else points_box(figure)
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        detail = f"damaged {shape}: {error}"
        return SourceObject(label, name, problem="annotation_malformed", detail=detail)
    problem = rectangle_problem(*points[0], *points[1])
    return SourceObject(label, name, points, problem=problem, is_crowd=is_crowd(figure))


def is_crowd(figure: Mapping[str, Any]) -> bool:
    """Return whether an object has the tag of crowd regions, with no value or one other than 0."""
    tags = figure.get("tags")
    found = [t for t in tags if isinstance(t, dict)] if isinstance(tags, list) else []
    return any(
        tag.get("name") == CROWD_TAG and str(tag.get("value")).lower() not in ("0", "false", "no")
        for tag in found
    )


def points_box(figure: Mapping[str, Any]) -> tuple[Point, Point]:
    """Return the corners of the box of a rectangle, polygon or line, as edges.

    On disk, coordinates are those of pixels, and the last pixel is part of the object.

    Raises:
        LookupError, TypeError, ValueError: if the points are damaged.
    """
    exterior = figure["points"]["exterior"]
    xs, ys = [float(x) for x, _ in exterior], [float(y) for _, y in exterior]
    return (min(xs), min(ys)), (max(xs) + 1, max(ys) + 1)
