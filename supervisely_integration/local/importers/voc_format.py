"""Pascal VOC: an XML file for each image, with folders of lists or with two-column lists."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rtdetrv2_pytorch.src.misc.errors import DatasetError

from .decoding import clip_box, read_picture
from .source import (
    DEFAULT_DATASET,
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

LOOKED_FOR = (
    "folders JPEGImages and Annotations (with XML files), or lists such as train.txt with "
    "'image path annotation path' in each line"
)
_DEPTH = 2  # folders between the given one and JPEGImages: VOCdevkit/VOC2012
_SPLITS = ("train", "val", "test", "trainval")
_LABELS = ("label_list.txt", "labels.txt")
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class _Object:
    title: str
    corners: tuple[float, float, float, float] | None  # as written


@dataclass
class _Entry:
    """One image as the lists name it."""

    dataset: str
    image: Path | None
    annotation: Path | None
    what: str
    objects: list[_Object] = field(default_factory=list)
    size_wh: tuple[int, int] | None = None
    error: str = ""


def recognise(folder: Path) -> bool:
    """Whether a folder looks like a data set in this format."""
    return bool(_devkits(folder)) or bool(_two_column_lists(folder))


def read(folder: Path) -> ImportSource:
    """Read a folder.

    Classes are those of label_list.txt, or else all that occur.

    Raises:
        DatasetError: if it holds no image in this format.
    """
    ledger = Ledger()
    devkits = _devkits(folder)
    entries: list[_Entry] = []
    for root in devkits:
        # The name of the year is the parent of its splits, where there are several years.
        entries += _devkit_entries(root, f"{root.name}/" if len(devkits) > 1 else "", ledger)
    entries = entries or [e for f in _two_column_lists(folder) for e in _list_entries(f, folder)]
    if not entries:
        raise DatasetError(f"{folder}: no images in Pascal VOC format; looked for {LOOKED_FOR}")
    for entry in entries:
        _read_xml(entry)
    titles = _labels(folder) or sorted({o.title for e in entries for o in e.objects if o.title})
    meta = make_meta(dict.fromkeys(titles, RECTANGLE))
    items = _items(entries, frozenset(titles), ledger)
    return ImportSource("voc", meta, items, len(entries), ledger)


# Which images there are


def _devkits(folder: Path) -> list[Path]:
    """Folders that hold JPEGImages and Annotations."""
    found, level = [], [folder]
    for _ in range(_DEPTH + 1):
        found += [f for f in level if (f / "JPEGImages").is_dir() and (f / "Annotations").is_dir()]
        level = [p for f in level for p in sorted(f.iterdir()) if p.is_dir()]
    return found


def _devkit_entries(root: Path, parent: str, ledger: Ledger) -> Iterator[_Entry]:
    images = {p.stem: p for p in list_files(root / "JPEGImages") if is_image(p)}
    lists = {s: read_lines(root / "ImageSets" / "Main" / f"{s}.txt") for s in _SPLITS}
    if lists["train"] or lists["val"]:
        lists["trainval"] = []  # both of them once more
    if not any(lists.values()):
        lists = {DEFAULT_DATASET: list(images)}
    used = set()
    for split, lines in lists.items():
        dataset = parent + ("train" if split == "trainval" else split)
        for line in lines:
            name = line if line in images else line.split()[0]
            used.add(name)
            annotation = inside(root / "Annotations", f"{name}.xml")
            yield _Entry(dataset, images.get(name), annotation, f"{dataset}: {name}")
    for name in sorted(images.keys() - used):
        ledger.given_images += 1
        ledger.skip_image(images[name].name, "image in no list of ImageSets/Main")


def _two_column_lists(folder: Path) -> list[Path]:
    """Lists whose first line is an image path and a path of an XML file."""
    found = []
    for path in sorted(folder.glob("*.txt")):
        first = next(iter(read_lines(path)), "").split()
        if len(first) == 2 and first[1].lower().endswith(".xml"):
            found.append(path)
    if any(split_of(p.stem) == "train" and p.stem != "trainval" for p in found):
        found = [p for p in found if p.stem != "trainval"]
    return found


def _list_entries(file: Path, folder: Path) -> Iterator[_Entry]:
    dataset = split_of(file.stem) or file.stem
    for line in read_lines(file):
        what = f"{file.name}: {line}"
        parts = line.split()
        if len(parts) != 2:
            error = "line that is not 'image path annotation path'"
            yield _Entry(dataset, None, None, what, error=error)
            continue
        image, annotation = (inside(folder, part) for part in parts)
        error = "path outside of the folder" if image is None or annotation is None else ""
        yield _Entry(dataset, image, annotation, what, error=error)


def _labels(folder: Path) -> list[str]:
    """Classes of the list of labels, each once; none if there is no list."""
    found = (folder / name for name in _LABELS if (folder / name).is_file())
    return list(dict.fromkeys(line for path in found for line in read_lines(path)))


# What is on them


def _read_xml(entry: _Entry) -> None:
    """Fill in the objects, or the error."""
    if entry.error:
        return
    try:
        root = ET.parse(entry.annotation or "").getroot()
    except FileNotFoundError:
        entry.error = "annotation file missing"
    except (OSError, ET.ParseError, ValueError, LookupError):
        entry.error = "annotation file that cannot be read"
    else:
        entry.objects = [_object(item) for item in root.iter("object")]
        entry.size_wh = _declared_size(root)


def _object(item: ET.Element) -> _Object:
    title = item.findtext("name", "").strip()
    try:
        x1, y1, x2, y2 = (float(item.findtext(f"bndbox/{side}") or "") for side in _SIDES)
    except ValueError:
        return _Object(title, None)
    return _Object(title, (x1, y1, x2, y2))


def _declared_size(root: ET.Element) -> tuple[int, int] | None:
    try:
        width, height = (int(float(root.findtext(f"size/{k}") or 0)) for k in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _items(entries: list[_Entry], titles: frozenset[str], ledger: Ledger) -> Iterator[ImportItem]:
    names = UniqueNames()
    for entry in entries:
        ledger.given_images += 1
        ledger.given_objects += len(entry.objects)
        try:
            if entry.error:
                raise DatasetError(entry.error)
            if entry.image is None:
                raise DatasetError("image file missing")
            picture = read_picture(entry.image)
            is_turned = picture.is_drawn_before_turning(entry.size_wh)
        except DatasetError as error:
            ledger.skip_image(entry.what, str(error), objects=len(entry.objects))
            continue
        objects = []
        for number, item in enumerate(entry.objects, start=1):
            try:
                corners = _edges(item, titles)
                corners = picture.turn(corners) if is_turned else corners
                box = clip_box(corners, picture.size_wh)
                objects.append(make_object(item.title, RECTANGLE, box))
            except DatasetError as error:
                ledger.skip_object(f"{entry.what}, object {number} ({item.title!r})", str(error))
        name = names.take(entry.dataset, entry.image.name)
        annotation = make_annotation(picture.size_wh, objects)
        yield ImportItem(entry.dataset, name, entry.image, annotation)


def _edges(item: _Object, titles: frozenset[str]) -> list[tuple[float, float]]:
    """Corners of an object: VOC counts pixels from 1, and its last pixel is part of the box."""
    if item.title not in titles:
        raise DatasetError("object of an unknown class")
    if item.corners is None:
        raise DatasetError("box that is not four numbers")
    left, top, right, bottom = item.corners
    if right <= left or bottom <= top:
        raise DatasetError("box without area")
    return [(left - 1, top - 1), (right, bottom)]
