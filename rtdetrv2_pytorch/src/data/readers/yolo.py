"""YOLO format: a data.yaml (or classes.txt), folders of images, and a text file for each image."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...misc.errors import DatasetError
from ...misc.limits import read_yaml
from ..findings import Finding, Findings, UnusableError
from ..images.opening import is_image
from .folders import inside, list_files, read_lines, relative, split_of
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

LOOKED_FOR = "data.yaml with 'names', or classes.txt next to the folders images and labels"
_CLASS_LISTS = ("classes.txt", "labels/classes.txt", "obj.names", "_darknet.labels")
_SPLIT_KEYS = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}
_BOX_NUMBERS = 4


@dataclass(frozen=True)
class _Layout:
    """The contents of the yaml file or of the class list."""

    names: Mapping[int, str]
    listed: Mapping[str, list[str]]  # paths of each split, as written
    base: Path  # that they are relative to
    has_keypoints: bool = False


def recognize(folder: Path) -> bool:
    """Return whether a folder looks like a data set in this format."""
    if _yaml_file(folder) is not None:
        return True
    return _class_list(folder) is not None and any(
        path.suffix.lower() == ".txt" for path in list_files(folder / "labels")
    )


def read(folder: Path) -> DataSource:
    """Read a folder.

    An image without a text file has no objects, as in Ultralytics.

    Raises:
        DatasetError: if the classes or all images are missing.
    """
    findings = Findings()
    layout = _read_layout(folder)
    images = list(_images(folder, layout, findings))
    if not images:
        raise DatasetError(
            f"{folder}: no images of a YOLO data set found; put them into images/train and "
            "images/val, or correct the paths in its yaml file"
        )
    parsed = _parsed(folder, images, layout, findings)
    return DataSource("yolo", _shapes(images, layout), parsed, len(images), findings)


# Classes and splits


def _yaml_file(folder: Path) -> Path | None:
    """Return the yaml file that names the classes, the usual name first."""
    files = [p for p in sorted(folder.glob("*.y*ml")) if p.suffix in (".yaml", ".yml")]
    files.sort(key=lambda p: p.stem not in ("data", "dataset"))
    return next((path for path in files if "names" in _read_yaml(path)), None)


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        content = read_yaml(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _class_list(folder: Path) -> Path | None:
    return next((folder / n for n in _CLASS_LISTS if (folder / n).is_file()), None)


def _read_layout(folder: Path) -> _Layout:
    file = _yaml_file(folder)
    if file is None:
        listed = _class_list(folder)
        if listed is None:
            raise DatasetError(f"{folder}: no classes found; looked for {LOOKED_FOR}")
        return _Layout(_checked(dict(enumerate(read_lines(listed))), listed), {}, folder)
    content = _read_yaml(file)
    splits = {}
    for split, keys in _SPLIT_KEYS.items():
        value: Any = next((content[key] for key in keys if content.get(key)), [])
        splits[split] = [str(v) for v in (value if isinstance(value, list) else [value])]
    # The path of another machine does not exist here: use the folder of the yaml file.
    base = inside(folder, str(content.get("path") or "."))
    base = base if base is not None and base.is_dir() else folder
    return _Layout(_class_names(file, content["names"]), splits, base, "kpt_shape" in content)


def _class_names(file: Path, names: Any) -> dict[int, str]:
    listed = dict(enumerate(names)) if isinstance(names, list) else names
    try:
        return _checked({int(number): str(name).strip() for number, name in listed.items()}, file)
    except (AttributeError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{file}: 'names' is neither a list nor 'number: name'; write one class name per line"
        ) from error


def _checked(names: dict[int, str], file: Path) -> dict[int, str]:
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


def _images(folder: Path, layout: _Layout, findings: Findings) -> Iterator[tuple[str, Path]]:
    """Yield (split, path) of every image."""
    seen: set[Path] = set()
    for split, entries in layout.listed.items():
        for entry in entries:
            files = _resolve(entry, split, layout.base, folder, findings)
            if not files:
                findings.add(Finding("split_without_images", entry, split=split))
            for path in files:
                if path not in seen:
                    seen.add(path)
                    yield split, path
    if seen:
        return
    for path in list_files(folder):
        if is_image(path):
            yield split_of(*reversed(path.relative_to(folder).parts[:-1])) or DEFAULT_SPLIT, path


def _resolve(entry: str, split: str, base: Path, folder: Path, findings: Findings) -> list[Path]:
    """Return the images of an entry of the yaml file: of a folder, or of a file that lists them."""
    # Exports of Roboflow write ../train/images for the folder next to the file.
    parts = [p for p in Path(entry.replace("\\", "/")).parts if p not in ("..", "/", ".")]
    # The end of a path of another machine may exist here; the last part by itself is ambiguous.
    tails = [Path(*parts[start:]) for start in range(max(1, len(parts) - 1))]
    usual = [Path("images", split), Path(split, "images")]
    for candidate in [root / tail for tail in [*tails, *usual] for root in (base, folder)]:
        if candidate.is_dir():
            found = [p for p in list_files(candidate) if is_image(p)]
            if found:
                return found
        elif candidate.is_file() and candidate.suffix == ".txt":
            return list(_listed_images(candidate, split, folder, findings))
    return []


def _listed_images(file: Path, split: str, folder: Path, findings: Findings) -> Iterator[Path]:
    for line in read_lines(file):
        path = inside(file.parent, line)
        if path is not None:
            yield path
        else:
            findings.given_images += 1
            where = f"{relative(file, folder)}: {line}"
            findings.add(Finding("path_outside_folder", where, split=split, lost_images=1))


def _labels_of(image: Path) -> Path:
    """Return the text file of an image: in `labels` for an image in `images`, else next to it."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[:-1][::-1].index("images")
        parts[last] = "labels"
        found = Path(*parts).with_suffix(".txt")
        if found.is_file() or not image.with_suffix(".txt").is_file():
            return found
    return image.with_suffix(".txt")


# Objects


def _shapes(images: list[tuple[str, Path]], layout: _Layout) -> dict[str, str]:
    """Return the shape of each class: that of all its objects, or any."""
    used: dict[str, set[str]] = {name: set() for name in layout.names.values()}
    for _, path in images:
        for number, line in enumerate(read_lines(_labels_of(path)), start=1):
            found = _object(number, line, layout)
            if found.class_name:
                used[found.class_name].add(found.shape)
    return {
        name: ANY_SHAPE if len(shapes) > 1 else next(iter(shapes), RECTANGLE)
        for name, shapes in used.items()
    }


def _parsed(
    folder: Path, images: list[tuple[str, Path]], layout: _Layout, findings: Findings
) -> Iterator[SourceImage]:
    for split, path in images:
        labels, name = _labels_of(path), relative(path, folder)
        lines = read_lines(labels)
        findings.given_images += 1
        findings.given_objects += len(lines)
        if not _is_readable(
            labels
        ):  # without its objects, the image would be trained as background
            error = UnusableError("annotation_malformed", f"{labels.name} cannot be read")
            findings.skip_image(error, name, path, split=split)
            continue
        objects = [_object(number, line, layout) for number, line in enumerate(lines, start=1)]
        yield SourceImage(split, name, path, objects, is_relative=True)


def _is_readable(path: Path) -> bool:
    try:
        path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return not path.exists()
    return True


def _object(number: int, line: str, layout: _Layout) -> SourceObject:
    """Parse a line: class number, then center, width and height, or the corners of a polygon."""
    label = f"line {number}"
    first, *rest = line.split()
    try:
        class_number, values = float(first), [float(token) for token in rest]
    except ValueError:
        return SourceObject(label, "", problem="annotation_malformed", detail=shorten(line))
    if layout.has_keypoints:
        values = values[:_BOX_NUMBERS]
    if len(values) != _BOX_NUMBERS and (len(values) < 6 or len(values) % 2):
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
