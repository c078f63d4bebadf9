"""YOLO format: class names, folders or lists of images, and a text file for each image."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...misc.errors import DatasetError
from ...misc.limits import read_yaml
from ...misc.text import counted
from ..findings import Finding, Findings, UnusableError
from ..images.opening import is_image
from ..split_names import Part, split_of, split_of_path
from .folders import Tree, folder_of
from .source import (
    ANY_SHAPE,
    DEFAULT_SPLIT,
    POLYGON,
    RECTANGLE,
    DataSource,
    SourceImage,
    SourceObject,
    rectangle_problem,
    shorten,
)

LOOKED_FOR = "data.yaml with 'names', or classes.txt or obj.names beside text files of boxes"
_CLASS_LISTS = ("classes.txt", "obj.names", "_darknet.labels", "predefined_classes.txt")
_SPLIT_KEYS: Mapping[Part, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}
_BOX_NUMBERS = 4
_KEYPOINT_NUMBERS = 3
_VISIBILITIES = {0, 1, 2}
_NUM_PROBES = 20  # text files that are searched for boxes
_BOX_LINE = re.compile(r"\d+(\s+-?[\d.]+(e-?\d+)?){4,}\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class _Layout:
    """The contents of the yaml file, or of the class list."""

    names: Mapping[int, str]
    listed: Mapping[Part, list[str]]  # folders, lists and images of each split, as written
    base: str = ""  # folder of the file, relative to the root
    has_keypoints: bool = False


def recognize(tree: Tree) -> bool:
    """Return whether a folder looks like a data set in this format."""
    return _yaml_file(tree) is not None or (_class_list(tree) is not None and _has_boxes(tree))


def read(tree: Tree) -> DataSource:
    """Read a folder.

    An image without a text file has no objects, as in Ultralytics.

    Raises:
        DatasetError: if the classes or all images are missing.
    """
    findings = Findings()
    layout = _read_layout(tree)
    images = dict(_images(tree, layout, findings))
    if not images:
        count = len(tree.images)
        raise DatasetError(
            f"{tree.root}: none of its {counted(count, 'image')} is in the folders and lists of "
            "its YOLO files; correct their paths"
            if count
            else f"{tree.root}: it has YOLO files, but no image; add the images"
        )
    labels = {name: _labels_of(tree, name) for name in images}
    shapes = _shapes(tree, labels, layout)
    groups = Counter(images.values())
    return DataSource(
        "yolo",
        {name: _shape(kinds) for name, kinds in shapes.items()},
        _parsed(tree, images, labels, layout, findings),
        groups,
        findings,
        images,
        {name for name, kinds in shapes.items() if kinds},
    )


# Classes and splits


def _yaml_file(tree: Tree) -> str | None:
    """Return the yaml file that names the classes, the usual name first."""
    files = tree.with_suffix(".yaml", ".yml")
    files.sort(key=lambda name: (name.count("/"), Path(name).stem not in ("data", "dataset")))
    return next((name for name in files if "names" in _read_yaml(tree, name)), None)


def _read_yaml(tree: Tree, name: str) -> Mapping[str, Any]:
    try:
        content = read_yaml(tree.text(name))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _class_list(tree: Tree) -> str | None:
    names = tree.with_suffix(".txt", ".names", ".labels")
    return next((name for name in names if Path(name).name.lower() in _CLASS_LISTS), None)


def _has_boxes(tree: Tree) -> bool:
    names = [n for n in tree.with_suffix(".txt") if Path(n).name.lower() not in _CLASS_LISTS]
    probes = names[:_NUM_PROBES] + names[-_NUM_PROBES:]
    if not names:  # labelImg writes a class list beside XML files, too
        return not tree.with_suffix(".xml", ".json")
    return any(_BOX_LINE.match((tree.lines(name) or ["0 0 0 0 0"])[0]) for name in probes)


def _read_layout(tree: Tree) -> _Layout:
    file = _yaml_file(tree)
    if file is None:
        listed = _class_list(tree)
        if listed is None:
            raise DatasetError(f"{tree.root}: no classes found; looked for {LOOKED_FOR}")
        names = dict(enumerate(tree.lines(listed)))
        return _Layout(_checked(names, listed), _lists(tree), folder_of(listed))
    content = _read_yaml(tree, file)
    splits: dict[Part, list[str]] = {}
    for split, keys in _SPLIT_KEYS.items():
        value: Any = next((content[key] for key in keys if content.get(key)), [])
        splits[split] = [str(v) for v in (value if isinstance(value, list) else [value])]
    names = _class_names(file, content["names"])
    return _Layout(names, splits, _base(tree, file, content), "kpt_shape" in content)


def _base(tree: Tree, file: str, content: Mapping[str, Any]) -> str:
    """Return the folder of 'path', or that of the yaml file if it is one of another machine."""
    parts = [folder_of(file), *str(content.get("path") or "").replace("\\", "/").split("/")]
    path = "/".join(part for part in parts if part not in ("", "."))
    return path if tree.images_in(path) else folder_of(file)


def _lists(tree: Tree) -> dict[Part, list[str]]:
    """Return the lists of images of a layout without yaml file: train.txt, or those of obj.data."""
    found: dict[Part, list[str]] = {}
    for name in tree.with_suffix(".txt"):
        part = split_of(Path(name).stem)
        first = (tree.lines(name) or [""])[0]
        if part is not None and name.count("/") <= 1 and is_image(Path(first)):
            found.setdefault(part, []).append(name)
    return found


def _class_names(file: str, names: Any) -> dict[int, str]:
    listed = dict(enumerate(names)) if isinstance(names, list) else names
    try:
        return _checked({int(number): str(name).strip() for number, name in listed.items()}, file)
    except (AttributeError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{file}: 'names' is neither a list nor 'number: name'; write one class name per line"
        ) from error


def _checked(names: dict[int, str], file: str) -> dict[int, str]:
    if not names:
        raise DatasetError(f"{file}: names no class; write one class name per line")
    for number, name in names.items():
        if not name:
            raise DatasetError(f"{file}: class {number} has no name; give it one")
    for name, count in Counter(names.values()).items():
        if count > 1:
            raise DatasetError(f"{file}: class {name!r} occurs more than once; name it once")
    return names


# Images


def _images(tree: Tree, layout: _Layout, findings: Findings) -> Iterator[tuple[str, str]]:
    """Yield the path of every image, relative to the root, and its split."""
    seen: set[str] = set()
    for split, entries in layout.listed.items():
        for entry in entries:
            names = list(_resolve(entry, split, layout.base, tree, findings))
            new = [name for name in dict.fromkeys(names) if name not in seen]
            if not new:
                detail = "all its images are in an earlier split" if names else ""
                findings.add(Finding("split_without_images", entry, detail, split=split))
            seen.update(new)
            yield from ((name, split) for name in new)
    if not seen and not findings.given_images:
        for name in tree.images:
            yield name, split_of_path(folder_of(name)) or DEFAULT_SPLIT


def _resolve(entry: str, split: Part, base: str, tree: Tree, findings: Findings) -> Iterator[str]:
    """Yield the images of an entry: of a folder, of a file that lists them, or one image."""
    # Exports of Roboflow write ../train/images for the folder next to the file.
    parts = [p for p in entry.replace("\\", "/").split("/") if p not in ("..", "", ".")]
    # The end of a path of another machine may exist here; the last part by itself is ambiguous.
    tails = ["/".join(parts[start:]) for start in range(max(1, len(parts) - 1))]
    usual = [f"images/{split}", f"{split}/images"]
    for tail in [*tails, *usual, *tails[-1:]]:
        for folder in dict.fromkeys((base, "")):
            name = f"{folder}/{tail}" if folder and tail else folder or tail
            if name.lower().endswith(".txt") and name in tree.files:
                yield from _listed_images(name, split, tree, findings)
                return
            if is_image(Path(name)) and name in tree.files:
                yield name
                return
            is_folder = (name or entry in (".", "./")) and not is_image(Path(name))
            found = tree.images_in(name) if is_folder else []
            if found:
                yield from found
                return


def _listed_images(file: str, split: Part, tree: Tree, findings: Findings) -> Iterator[str]:
    for line in tree.lines(file):
        try:
            yield tree.find_image(line, folder_of(file), "")
        except UnusableError as error:
            findings.given_images += 1
            findings.skip_image(error, f"{file}: {line}", None, split=split)


def _labels_of(tree: Tree, image: str) -> str:
    """Return the text file of an image: in `labels` for an image in `images`, or next to it.

    Else it is the only one of this name.
    """
    stem = image[: -len(Path(image).suffix)]
    beside = f"{stem}.txt"
    parts = stem.split("/")
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[:-1][::-1].index("images")
        found = "/".join([*parts[:last], "labels", *parts[last + 1 :]]) + ".txt"
        if found in tree.files or beside not in tree.files:
            beside = found
    if beside in tree.files:
        return beside
    near = tree.find_named(parts[-1], folder_of(image), suffixes=(".txt",))
    return near[0] if len(near) == 1 else beside


# Objects


def _shapes(tree: Tree, labels: Mapping[str, str], layout: _Layout) -> dict[str, set[str]]:
    """Return the shapes of the objects of each class."""
    used: dict[str, set[str]] = {name: set() for name in layout.names.values()}
    for file in labels.values():
        for number, line in enumerate(tree.lines(file), start=1):
            found = _object(number, line, layout)
            if found.class_name:
                used[found.class_name].add(found.shape)
    return used


def _shape(kinds: set[str]) -> str:
    return ANY_SHAPE if len(kinds) > 1 else next(iter(kinds), RECTANGLE)


def _parsed(
    tree: Tree,
    images: Mapping[str, str],
    labels: Mapping[str, str],
    layout: _Layout,
    findings: Findings,
) -> Iterator[SourceImage]:
    for name, split in images.items():
        path, file = tree.files[name], labels[name]
        findings.given_images += 1
        if problem := _problem(tree, file):
            findings.skip_image(problem, name, path, split=split)
            continue
        lines = tree.lines(file)
        findings.given_objects += len(lines)
        objects = [_object(number, line, layout) for number, line in enumerate(lines, start=1)]
        yield SourceImage(split, name, path, objects, is_relative=True)


def _problem(tree: Tree, file: str) -> UnusableError | None:
    """Return why a text file cannot be read: its image must not be trained as background."""
    if file not in tree.files:
        is_there = (tree.root / file).is_symlink()
        detail = f"{Path(file).name} links to no file of the data set"
        return UnusableError("annotation_malformed", detail) if is_there else None
    try:
        tree.files[file].read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return UnusableError("annotation_malformed", f"{Path(file).name} cannot be read")
    return None


def _is_pose(values: Sequence[float]) -> bool:
    """Return whether keypoints (x, y, visibility) follow a box, and not a confidence a polygon."""
    num_more = len(values) - _BOX_NUMBERS
    is_triples = num_more > 0 and num_more % _KEYPOINT_NUMBERS == 0
    return is_triples and len(values) % 2 == 1 and {*values[6::3]} <= _VISIBILITIES


def _object(number: int, line: str, layout: _Layout) -> SourceObject:
    """Parse a line: class number, then center, width and height, or the corners of a polygon.

    A box may be followed by its confidence, or by keypoints, and a polygon by a confidence.
    """
    label = f"line {number}"
    first, *rest = line.split()
    try:
        class_number, values = float(first), [float(token) for token in rest]
    except ValueError:
        return SourceObject(label, "", problem="annotation_malformed", detail=shorten(line))
    count = len(values)
    if layout.has_keypoints or count == _BOX_NUMBERS + 1 or _is_pose(values):
        values = values[:_BOX_NUMBERS]
    elif count % 2:
        values = values[:-1]
    if len(values) != _BOX_NUMBERS and len(values) < 6:
        return SourceObject(label, "", problem="annotation_malformed", detail=shorten(line))
    name = layout.names.get(int(class_number)) if class_number.is_integer() else None
    if name is None:
        return SourceObject(label, "", problem="unknown_class", detail=first)
    if len(values) == _BOX_NUMBERS:
        x, y, width, height = values
        points = (x - width / 2, y - height / 2), (x + width / 2, y + height / 2)
        problem = rectangle_problem(*points[0], *points[1])
        return SourceObject(label, name, points, problem=problem, detail=shorten(line))
    polygon = list(zip(values[::2], values[1::2], strict=True))
    if all(map(math.isfinite, values)):
        xs, ys = values[::2], values[1::2]
        problem = rectangle_problem(min(xs), min(ys), max(xs), max(ys))
    else:
        problem = "box_not_finite"
    return SourceObject(label, name, polygon, POLYGON, problem, shorten(line))
