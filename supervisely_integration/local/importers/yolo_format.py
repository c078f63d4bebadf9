"""YOLO: a data.yaml (or classes.txt), folders of images, and a text file of boxes for each."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rtdetrv2_pytorch.src.misc.errors import DatasetError
from rtdetrv2_pytorch.src.misc.limits import read_yaml

from .decoding import Picture, clip_box, clip_polygon, read_picture
from .source import (
    ANY_SHAPE,
    DEFAULT_DATASET,
    POLYGON,
    RECTANGLE,
    ImportItem,
    ImportSource,
    Ledger,
    UniqueNames,
    inside,
    is_image,
    list_files,
    make_annotation,
    make_meta,
    make_object,
    read_lines,
    split_of,
)

LOOKED_FOR = "data.yaml with 'names', or classes.txt beside folders images and labels"
_CLASS_LISTS = ("classes.txt", "labels/classes.txt", "obj.names", "_darknet.labels")
_BOX_NUMBERS = 4
_UNUSABLE = "line that is neither a box nor a polygon"


@dataclass(frozen=True)
class _Layout:
    """What the yaml file, or the list of classes, says."""

    names: Mapping[int, str]
    listed: Mapping[str, list[str]]  # images of each split, as written
    base: Path  # that they are relative to
    has_keypoints: bool = False


@dataclass(frozen=True)
class _Image:
    dataset: str
    path: Path
    labels: Path


def recognise(folder: Path) -> bool:
    """Whether a folder looks like a data set in this format."""
    if _yaml_file(folder) is not None:
        return True
    return _class_list(folder) is not None and any(
        path.suffix.lower() == ".txt" for path in list_files(folder / "labels")
    )


def read(folder: Path) -> ImportSource:
    """Read a folder.

    An image without a text file has no objects, as ultralytics has it.

    Raises:
        DatasetError: if the classes or all the images cannot be found.
    """
    ledger = Ledger()
    layout = _read_layout(folder)
    images = list(_images(folder, layout, ledger))
    if not images:
        raise DatasetError(
            f"{folder}: no images of a YOLO data set found; put them into images/train and "
            "images/val, or correct the paths in its yaml file"
        )
    meta = make_meta(_shapes(images, layout))
    items = _items(folder, images, layout, ledger)
    return ImportSource("yolo", meta, items, len(images), ledger)


# Classes and splits


def _yaml_file(folder: Path) -> Path | None:
    """The yaml file that names the classes; the usual name first."""
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
        return _Layout(_unique(dict(enumerate(read_lines(listed))), listed), {}, folder)
    content = _read_yaml(file)
    splits = {}
    for split, keys in {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}.items():
        value: Any = next((content[key] for key in keys if content.get(key)), [])
        splits[split] = [str(v) for v in (value if isinstance(value, list) else [value])]
    # Paths of another machine are of no use here: then the file's own folder is meant.
    base = inside(folder, str(content.get("path") or "."))
    base = base if base is not None and base.is_dir() else folder
    return _Layout(_class_names(file, content["names"]), splits, base, "kpt_shape" in content)


def _class_names(file: Path, names: Any) -> dict[int, str]:
    listed = dict(enumerate(names)) if isinstance(names, list) else names
    try:
        return _unique({int(number): str(name).strip() for number, name in listed.items()}, file)
    except (AttributeError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{file}: 'names' is neither a list nor 'number: name'; write one class name a line"
        ) from error


def _unique(names: dict[int, str], file: Path) -> dict[int, str]:
    if not names:
        raise DatasetError(f"{file}: names no class; write one class name a line")
    for number, name in names.items():
        if not name:
            raise DatasetError(f"{file}: class {number} has no name; give it one")
    for name, count in Counter(names.values()).items():
        if count > 1:
            raise DatasetError(f"{file}: class {name!r} occurs more than once; name it once")
    return names


# Images


def _images(folder: Path, layout: _Layout, ledger: Ledger) -> Iterator[_Image]:
    seen: set[Path] = set()
    for split, entries in layout.listed.items():
        for entry in entries:
            files = _resolve(entry, split, layout.base, folder, ledger)
            if not files:
                ledger.note(f"{split}: {entry}", "split of the yaml file that has no images")
            for path in files:
                if path not in seen:
                    seen.add(path)
                    yield _Image(split, path, _labels_of(path))
    if seen:
        return
    for path in list_files(folder):
        if is_image(path):
            split = split_of(*reversed(path.relative_to(folder).parts[:-1])) or DEFAULT_DATASET
            yield _Image(split, path, _labels_of(path))


def _resolve(entry: str, split: str, base: Path, folder: Path, ledger: Ledger) -> list[Path]:
    """Images that an entry of the yaml file means: a folder, or a file that lists them."""
    # Exports of Roboflow say ../train/images for the folder beside the file.
    parts = [p for p in Path(entry.replace("\\", "/")).parts if p not in ("..", "/", ".")]
    # Of a path of another machine the end counts, but its last part alone is too little.
    tails = [Path(*parts[start:]) for start in range(max(1, len(parts) - 1))]
    usual = [Path("images", split), Path(split, "images")]
    for candidate in [root / tail for tail in [*tails, *usual] for root in (base, folder)]:
        if candidate.is_dir():
            found = [p for p in list_files(candidate) if is_image(p)]
            if found:
                return found
        elif candidate.is_file() and candidate.suffix == ".txt":
            return list(_listed_images(candidate, folder, ledger))
    return []


def _listed_images(file: Path, folder: Path, ledger: Ledger) -> Iterator[Path]:
    for line in read_lines(file):
        path = inside(file.parent, line)
        if path is not None:
            yield path
        else:
            ledger.given_images += 1
            ledger.skip_image(f"{_relative(file, folder)}: {line}", "image outside of the folder")


def _labels_of(image: Path) -> Path:
    """The text file of an image: in `labels` where the image is in `images`, else beside it."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[:-1][::-1].index("images")
        parts[last] = "labels"
        found = Path(*parts).with_suffix(".txt")
        if found.is_file() or not image.with_suffix(".txt").is_file():
            return found
    return image.with_suffix(".txt")


# Boxes


def _shapes(images: list[_Image], layout: _Layout) -> dict[str, str]:
    """Shape of each class: that of all its objects, or any."""
    used: dict[str, set[str]] = {title: set() for title in layout.names.values()}
    for image in images:
        for line in read_lines(image.labels):
            title, numbers = _parse(line, layout)
            if title is not None and numbers is not None:
                used[title].add(RECTANGLE if len(numbers) == _BOX_NUMBERS else POLYGON)
    return {
        title: ANY_SHAPE if len(shapes) > 1 else next(iter(shapes), RECTANGLE)
        for title, shapes in used.items()
    }


def _parse(line: str, layout: _Layout) -> tuple[str | None, list[float] | None]:
    """(class, numbers) of a line; None for what cannot be used."""
    first, *rest = line.split()
    try:
        number, values = float(first), [float(token) for token in rest]
    except ValueError:
        return None, None
    title = layout.names.get(int(number)) if number.is_integer() else None
    if layout.has_keypoints:
        values = values[:_BOX_NUMBERS]
    is_polygon = len(values) >= 6 and len(values) % 2 == 0
    return title, values if len(values) == _BOX_NUMBERS or is_polygon else None


def _items(
    folder: Path, images: list[_Image], layout: _Layout, ledger: Ledger
) -> Iterator[ImportItem]:
    names = UniqueNames()
    for image in images:
        ledger.given_images += 1
        lines = read_lines(image.labels)
        ledger.given_objects += len(lines)
        what = _relative(image.path, folder)
        try:
            _check_labels(image.labels)
            picture = read_picture(image.path)
        except DatasetError as error:
            ledger.skip_image(what, str(error), objects=len(lines))
            continue
        objects = []
        for number, line in enumerate(lines, start=1):
            try:
                objects.append(_object(line, layout, picture))
            except DatasetError as error:
                ledger.skip_object(f"{_relative(image.labels, folder)}, line {number}", str(error))
        name = names.take(image.dataset, image.path.name)
        annotation = make_annotation(picture.size_wh, objects)
        yield ImportItem(image.dataset, name, image.path, annotation)


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if folder in path.parents else path.name


def _check_labels(path: Path) -> None:
    """An image whose text file is damaged would be taught as one without objects."""
    if not path.exists():
        return
    try:
        path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError("label file that cannot be read") from error


def _object(line: str, layout: _Layout, picture: Picture) -> dict[str, Any]:
    title, numbers = _parse(line, layout)
    if numbers is None:
        raise DatasetError(_UNUSABLE)
    if title is None:
        raise DatasetError("class number that the list of classes does not have")
    width, height = picture.size_wh
    if len(numbers) == _BOX_NUMBERS:
        cx, cy, w, h = numbers
        if w <= 0 or h <= 0:
            raise DatasetError("box without area")
        corners = [
            ((cx - w / 2) * width, (cy - h / 2) * height),
            ((cx + w / 2) * width, (cy + h / 2) * height),
        ]
        return make_object(title, RECTANGLE, clip_box(corners, picture.size_wh))
    points = [(x * width, y * height) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]
    return make_object(title, POLYGON, clip_polygon(points, picture.size_wh))
