"""Pascal VOC format: an XML file for each image, with ImageSets lists or two-column lists."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...misc.errors import DatasetError
from ..findings import Finding, Findings, UnusableError
from ..images.opening import is_image
from .folders import inside, list_files, read_lines, split_of
from .source import (
    DEFAULT_SPLIT,
    RECTANGLE,
    DataSource,
    SourceImage,
    SourceObject,
    declared_size,
    rectangle_problem,
)

LOOKED_FOR = (
    "folders JPEGImages and Annotations (with XML files), or lists such as train.txt with "
    "'image path annotation path' in each line"
)
_DEPTH = 2  # folders above JPEGImages: VOCdevkit/VOC2012
_SPLITS = ("train", "val", "test", "trainval")
_CLASS_LISTS = ("label_list.txt", "labels.txt")
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass
class _Entry:
    """One image as the lists name it."""

    split: str
    name: str
    image: Path | None = None
    annotation: Path | None = None
    problem: UnusableError | None = None
    objects: Sequence[SourceObject] = field(default_factory=list)
    size_wh: tuple[int, int] | None = None


def recognize(folder: Path) -> bool:
    """Return whether a folder looks like a data set in this format."""
    return bool(_devkits(folder)) or bool(_two_column_lists(folder))


def read(folder: Path) -> DataSource:
    """Read a folder.

    The classes are those of label_list.txt, or else all that occur.

    Raises:
        DatasetError: if it holds no image in this format.
    """
    findings = Findings()
    devkits = _devkits(folder)
    entries: list[_Entry] = []
    for root in devkits:
        # With several years, each is the parent of its splits.
        parent = f"{root.name}/" if len(devkits) > 1 else ""
        entries += _devkit_entries(root, parent, findings)
    entries = entries or [e for f in _two_column_lists(folder) for e in _list_entries(f, folder)]
    if not entries:
        raise DatasetError(f"{folder}: no images in Pascal VOC format; looked for {LOOKED_FOR}")
    for entry in entries:
        try:
            if entry.problem is None:
                entry.objects, entry.size_wh = read_annotation(entry.annotation, origin=1)
        except UnusableError as error:
            entry.problem = error
    occurring = {o.class_name for e in entries for o in e.objects if o.class_name}
    classes = dict.fromkeys(_listed_classes(folder) or sorted(occurring), RECTANGLE)
    return DataSource("voc", classes, _images(entries, findings), len(entries), findings)


# Images


def _devkits(folder: Path) -> list[Path]:
    """Return folders that hold JPEGImages and Annotations."""
    found, level = [], [folder]
    for _ in range(_DEPTH + 1):
        found += [f for f in level if (f / "JPEGImages").is_dir() and (f / "Annotations").is_dir()]
        level = [p for f in level for p in sorted(f.iterdir()) if p.is_dir()]
    return found


def _devkit_entries(root: Path, parent: str, findings: Findings) -> Iterator[_Entry]:
    images = {p.stem: p for p in list_files(root / "JPEGImages") if is_image(p)}
    lists = {s: read_lines(root / "ImageSets" / "Main" / f"{s}.txt") for s in _SPLITS}
    if lists["train"] or lists["val"]:
        lists["trainval"] = []  # repeats both
    if not any(lists.values()):
        lists = {DEFAULT_SPLIT: list(images)}
    listed = set()
    for split, lines in lists.items():
        dataset = parent + ("train" if split == "trainval" else split)
        for line in lines:
            name = line if line in images else line.split()[0]
            listed.add(name)
            path = images.get(name, root / "JPEGImages" / name)
            yield _Entry(dataset, name, path, inside(root / "Annotations", f"{name}.xml"))
    for name in sorted(images.keys() - listed):
        findings.given_images += 1
        findings.add(
            Finding("left_out", images[name].name, "in no list of ImageSets/Main", lost_images=1)
        )


def _two_column_lists(folder: Path) -> list[Path]:
    """Return lists whose first line is an image path and the path of an XML file."""
    found = []
    for path in sorted(folder.glob("*.txt")):
        first = next(iter(read_lines(path)), "").split()
        if len(first) == 2 and first[1].lower().endswith(".xml"):
            found.append(path)
    if any(split_of(p.stem) == "train" and p.stem != "trainval" for p in found):
        found = [p for p in found if p.stem != "trainval"]
    return found


def _list_entries(file: Path, folder: Path) -> Iterator[_Entry]:
    split = split_of(file.stem) or file.stem
    for line in read_lines(file):
        parts = line.split()
        if len(parts) != 2:
            detail = f"{file.name}: expected 'image path annotation path'"
            problem = UnusableError("image_entry_malformed", detail)
            yield _Entry(split, line, problem=problem)
            continue
        image, annotation = (inside(folder, part) for part in parts)
        if image is None or annotation is None:
            problem = UnusableError("path_outside_folder", f"listed in {file.name}")
            yield _Entry(split, line, problem=problem)
        else:
            yield _Entry(split, parts[0], image, annotation)


def _listed_classes(folder: Path) -> list[str]:
    """Return the classes of the class list, each once; none if there is no list."""
    found = (folder / name for name in _CLASS_LISTS if (folder / name).is_file())
    return list(dict.fromkeys(line for path in found for line in read_lines(path)))


def _images(entries: Sequence[_Entry], findings: Findings) -> Iterator[SourceImage]:
    for entry in entries:
        findings.given_images += 1
        findings.given_objects += len(entry.objects)
        problem = entry.problem or UnusableError("image_entry_malformed")
        if entry.image is None or entry.problem is not None:
            findings.skip_image(problem, entry.name, entry.image, split=entry.split)
            continue
        yield SourceImage(entry.split, entry.name, entry.image, entry.objects, entry.size_wh)


# Annotations


def read_annotation(
    path: Path | None, *, origin: int
) -> tuple[list[SourceObject], tuple[int, int] | None]:
    """Read the objects of an XML file, and the size of its image as (width, height).

    Difficult objects count as all others; parts of objects are ignored.

    Args:
        path: the file; None if its path is invalid.
        origin: number of the first pixel. 1 as in Pascal VOC, whose last pixel is part of the box;
            with 0 the coordinates are taken as edges.

    Raises:
        UnusableError: if the file cannot be read.
    """
    name = path.name if path else "annotation file"
    try:
        root = ET.parse(path or "").getroot()
    except FileNotFoundError as error:
        raise UnusableError("unlisted_image", f"{name} is missing") from error
    # The path may contain a null byte, the XML name an unknown encoding.
    except (OSError, ET.ParseError, ValueError, LookupError) as error:
        raise UnusableError("annotation_malformed", f"{name} cannot be read: {error}") from error
    objects = [_object(n, item, origin) for n, item in enumerate(root.iter("object"), start=1)]
    sizes = (root.findtext(f"size/{side}") for side in ("width", "height"))
    return objects, declared_size(*sizes)


def _object(number: int, item: ET.Element, origin: int) -> SourceObject:
    name = item.findtext("name", "").strip()
    label = f"object {number} ({name!r})"
    written = [item.findtext(f"bndbox/{side}") for side in _SIDES]
    detail = str(written)
    try:
        x1, y1, x2, y2 = (float(text or "") for text in written)
    except ValueError:
        return SourceObject(label, name, problem="box_malformed", detail=detail)
    problem = rectangle_problem(x1, y1, x2, y2)
    points = (x1 - origin, y1 - origin), (x2, y2)
    return SourceObject(label, name, points, problem=problem, detail=detail)
