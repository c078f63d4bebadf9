"""Pascal VOC format: an XML file for each image, anywhere in the folder, and lists of splits.

LabelMe and CVAT write variants of it: with polygons, without lists, or with lists of paths.
"""

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...misc.errors import DatasetError
from ..findings import Findings, UnusableError
from ..images.opening import is_image
from ..split_names import split_of, split_of_path
from .folders import Tree, folder_of
from .source import (
    DEFAULT_SPLIT,
    RECTANGLE,
    DataSource,
    Point,
    SourceImage,
    SourceObject,
    declared_size,
    rectangle_problem,
)

LOOKED_FOR = "an .xml file with <annotation> for each image, or lists of images and such files"
_CLASS_LISTS = ("label_list.txt", "labels.txt", "labelmap.txt", "class_names.txt")
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_NUM_PROBES = 20  # files that are searched for the root element
_ROOT = re.compile(rb"<annotation(\s[^>]*)?/?>")
_LISTS = "ImageSets/Main"


@dataclass
class _Entry:
    """One image as the lists name it, or as its XML file does."""

    split: str
    name: str  # for messages
    image: str | None = None  # path relative to the root
    annotation: str | None = None  # path relative to the root
    problem: UnusableError | None = None
    objects: Sequence[SourceObject] = field(default_factory=list)
    size_wh: tuple[int, int] | None = None


def recognize(tree: Tree) -> bool:
    """Return whether a folder looks like a data set in this format."""
    files = tree.with_suffix(".xml")
    probes = files[:_NUM_PROBES] + files[-_NUM_PROBES:]
    return any(_ROOT.search(tree.starts_with(file)) for file in probes)


def read(tree: Tree) -> DataSource:
    """Read a folder.

    The classes are those of label_list.txt, or else all that occur.

    Raises:
        DatasetError: if it holds no image in this format.
    """
    findings = Findings()
    entries = list(_entries(tree))
    if not entries:
        raise DatasetError(f"{tree.root}: no images in Pascal VOC format; looked for {LOOKED_FOR}")
    for entry in entries:
        try:
            if entry.problem is None:
                root = _parse_entry(entry, tree)
                entry.objects, entry.size_wh = _content(root, origin=1)
                if entry.image is None:
                    filename = (root.findtext("filename") or "").strip()
                    entry.image = _image_of(str(entry.annotation), filename, tree)
        except UnusableError as error:
            entry.problem = error
    used = {o.class_name for e in entries for o in e.objects if o.class_name}
    classes = dict.fromkeys(_listed_classes(tree) or sorted(used), RECTANGLE)
    listed = [name for e in entries for name in (e.image, e.name) if name is not None]
    groups = Counter(entry.split for entry in entries)
    return DataSource(
        "voc", classes, _images(entries, tree, findings), groups, findings, listed, used
    )


def _parse_entry(entry: _Entry, tree: Tree) -> ET.Element:
    path = None if entry.annotation is None else tree.listed_path(entry.annotation)
    if path is not None and entry.annotation not in tree.files and path.exists():
        raise UnusableError("path_outside_folder", f"{path.name} is a link")
    return _parse(path)


# Images


def _entries(tree: Tree) -> Iterator[_Entry]:
    files = [f for f in tree.with_suffix(".xml") if _ROOT.search(tree.starts_with(f))]
    by_root: dict[str, list[str]] = {}
    for file in files:
        by_root.setdefault(_devkit_of(file), []).append(file)
    lists = _split_lists(tree, sorted(by_root))
    if any(_is_two_column(tree, name) for names in lists.values() for name in names):
        for names in lists.values():
            for name in names:
                yield from _pairs(name, tree)
        return
    for root, own in sorted(by_root.items()):
        # With several years, each is the parent of its splits.
        parent = f"{Path(root).name}/" if len(by_root) > 1 and lists.get(root) else ""
        if lists.get(root):
            by_stem = {Path(file).stem: file for file in own}
            for name in lists[root]:
                yield from _listed(name, parent, by_stem, root, tree)
        else:
            for file in own:
                default = f"{Path(root).name}/{DEFAULT_SPLIT}" if lists and root else DEFAULT_SPLIT
                yield _Entry(_group_of(file) or default, file, annotation=file)


def _group_of(file: str) -> str | None:
    """Return the path of the split that an XML file is in: "VOC2007/train"."""
    folders = folder_of(file).split("/")
    for end in range(len(folders), 0, -1):
        if split_of(folders[end - 1]):
            return "/".join(folders[:end])
    return None


def _devkit_of(file: str) -> str:
    """Return the folder above Annotations, or that of the file itself."""
    parts = folder_of(file).split("/")
    for end in range(len(parts), 0, -1):
        if parts[end - 1].lower() in ("annotations", "annotation", "xml", "xmls", "labels"):
            return "/".join(parts[: end - 1])
    return "/".join(parts) if not split_of_path("/".join(parts)) else ""


def _split_lists(tree: Tree, roots: Sequence[str]) -> dict[str, list[str]]:
    """Return the lists of splits of each devkit, without those that repeat others.

    Lists are named after a split, as train.txt or Validation.txt; lists of one class, as
    cat_train.txt, are not.
    """
    found: dict[str, list[str]] = {}
    for name in tree.with_suffix(".txt"):
        stem, folder = Path(name).stem, folder_of(name)
        is_main = f"/{folder}/".lower().find(f"/{_LISTS.lower()}/") >= 0
        words = re.findall(r"[^\W\d_]+", stem)
        is_split = bool(words) and all(split_of(word) for word in words)
        if not (is_split or (is_main and stem.lower() == "default")) or not tree.lines(name):
            continue
        if not is_main and not _names_images(tree, name):
            continue
        above = folder[: -len(_LISTS)].strip("/") if is_main else folder
        owner = max(
            (r for r in roots if f"{above}/".startswith(f"{r}/") or not r), key=len, default=None
        )
        if owner is None:
            owner = next((r for r in roots if r.startswith(above) or not above), "")
        found.setdefault(owner, []).append(name)
    for names in found.values():
        stems = {Path(name).stem.lower() for name in names}
        if stems & {"train", "val"}:
            names[:] = [n for n in names if Path(n).stem.lower() != "trainval"]  # repeats both
    return found


def _names_images(tree: Tree, name: str) -> bool:
    """Return whether the first line of a list outside ImageSets names an image."""
    first = tree.lines(name)[0].split()[0]
    return first.lower().endswith(".xml") or bool(tree.find_named(_stem(first), ""))


def _is_two_column(tree: Tree, name: str) -> bool:
    first = (tree.lines(name) or [""])[0].split()
    return len(first) == 2 and first[1].lower().endswith(".xml")


def _listed(
    file: str, parent: str, by_stem: Mapping[str, str], root: str, tree: Tree
) -> Iterator[_Entry]:
    part = split_of(Path(file).stem)
    split = parent + (part or DEFAULT_SPLIT)
    for line in tree.lines(file):
        stem = next((s for s in (line, _stem(line), _stem(line.split()[0])) if s in by_stem), None)
        if stem is None:
            stem = _stem(line.split()[0])
        annotation = by_stem.get(stem, f"{root}/Annotations/{stem}.xml".lstrip("/"))
        near = tree.find_named(stem, root)
        image = near[0] if len(near) == 1 else None
        yield _Entry(split, stem if image is None else image, image, annotation)


def _stem(line: str) -> str:
    """Return the name of an image in a list, which may have folders and an extension."""
    path = Path(line.replace("\\", "/"))
    is_file = is_image(path) or path.suffix.lower() == ".xml"
    return path.stem if is_file else path.name


def _pairs(file: str, tree: Tree) -> Iterator[_Entry]:
    split = split_of(Path(file).stem) or Path(file).stem
    for line in tree.lines(file):
        parts = line.split()
        if len(parts) != 2:
            detail = f"{Path(file).name}: expected 'image path annotation path'"
            problem = UnusableError("image_entry_malformed", detail)
            yield _Entry(split, line, problem=problem)
            continue
        try:
            image = tree.find_image(parts[0], folder_of(file), "")
        except UnusableError as error:
            problem = UnusableError(error.kind, error.detail or f"listed in {Path(file).name}")
            yield _Entry(split, line, problem=problem)
            continue
        annotation = "/".join(p for p in (folder_of(file), parts[1].replace("\\", "/")) if p)
        if ".." in annotation.split("/") or Path(parts[1]).is_absolute():
            stem = _stem(parts[1])
            same = tree.find_named(stem, folder_of(file), suffixes=(".xml",))
            if len(same) != 1:
                problem = UnusableError("path_outside_folder", f"listed in {Path(file).name}")
                yield _Entry(split, line, problem=problem)
                continue
            annotation = same[0]
        yield _Entry(split, parts[0], image, annotation)


def _image_of(annotation: str, filename: str, tree: Tree) -> str:
    """Return the image of an XML file: that of its name, or that which it names.

    Raises:
        UnusableError: if there is none, or several.
    """
    folder = folder_of(annotation)
    near = tree.find_named(Path(annotation).stem, folder)
    if len(near) == 1:
        return near[0]
    if len(near) > 1 and Path(filename).name in [Path(name).name for name in near]:
        near = [name for name in near if Path(name).name == Path(filename).name]
        if len(near) == 1:
            return near[0]
    return tree.find_image(filename or Path(annotation).stem, folder)


def _listed_classes(tree: Tree) -> list[str]:
    """Return the classes of the class list, each once; none if there is no list.

    CVAT writes lines such as "cat:0,0,128::".
    """
    found = [n for n in tree.with_suffix(".txt") if Path(n).name.lower() in _CLASS_LISTS][:1]
    lines = [line for name in found for line in tree.lines(name) if not line.startswith("#")]
    return list(dict.fromkeys(re.sub(r":[\d,]*:.*$", "", line) for line in lines))


def _images(entries: Sequence[_Entry], tree: Tree, findings: Findings) -> Iterator[SourceImage]:
    for entry in entries:
        findings.given_images += 1
        findings.given_objects += len(entry.objects)
        if entry.image is None or entry.problem is not None:
            problem = entry.problem or UnusableError("missing_image")
            path = None if entry.image is None else tree.files[entry.image]
            lost = len(entry.objects)
            findings.skip_image(problem, entry.name, path, split=entry.split, objects=lost)
            continue
        path = tree.files[entry.image]
        yield SourceImage(entry.split, entry.image, path, entry.objects, entry.size_wh)


# Annotations


def read_annotation(
    path: Path | None, *, origin: int
) -> tuple[list[SourceObject], tuple[int, int] | None]:
    """Read the objects of an XML file, and the size of its image as (width, height).

    Difficult objects count as all others; parts of objects are ignored, and objects that LabelMe
    marks as deleted.

    Args:
        path: the file; None if its path is invalid.
        origin: number of the first pixel. 1 as in Pascal VOC, whose last pixel is part of the box;
            with 0 the coordinates are taken as edges.

    Raises:
        UnusableError: if the file cannot be read.
    """
    return _content(_parse(path), origin)


def _content(root: ET.Element, origin: int) -> tuple[list[SourceObject], tuple[int, int] | None]:
    items = [item for item in root.iter("object") if item.findtext("deleted", "0").strip() != "1"]
    objects = [_object(n, item, origin) for n, item in enumerate(items, start=1)]
    size = declared_size(root.findtext("size/width"), root.findtext("size/height"))
    # As LabelMe writes it.
    other = declared_size(root.findtext("imagesize/ncols"), root.findtext("imagesize/nrows"))
    return objects, size or other


def _parse(path: Path | None) -> ET.Element:
    name = path.name if path else "annotation file"
    try:
        return ET.parse(path or "").getroot()
    except FileNotFoundError as error:
        raise UnusableError("unlisted_image", f"{name} is missing") from error
    # The path may contain a null byte, the XML name an unknown encoding.
    except (OSError, ET.ParseError, ValueError, LookupError) as error:
        raise UnusableError("annotation_malformed", f"{name} cannot be read: {error}") from error


def _object(number: int, item: ET.Element, origin: int) -> SourceObject:
    name = item.findtext("name", "").strip()
    label = f"object {number} ({name!r})"
    if item.find("bndbox") is None and item.find("polygon") is not None:
        return _polygon(label, name, item)
    written = [item.findtext(f"bndbox/{side}") for side in _SIDES]
    detail = str(written)
    try:
        x1, y1, x2, y2 = (float(text or "") for text in written)
    except ValueError:
        return SourceObject(label, name, problem="box_malformed", detail=detail)
    problem = rectangle_problem(x1, y1, x2, y2)
    points = (x1 - origin, y1 - origin), (x2, y2)
    return SourceObject(label, name, points, problem=problem, detail=detail)


def _polygon(label: str, name: str, item: ET.Element) -> SourceObject:
    """Return the box around a polygon of LabelMe, whose points are edges."""
    try:
        points: list[Point] = [
            (float(point.findtext("x", "")), float(point.findtext("y", "")))
            for point in item.iterfind("polygon/pt")
        ]
        xs, ys = [x for x, _ in points], [y for _, y in points]
        box = (min(xs), min(ys)), (max(xs), max(ys))
    except ValueError:
        return SourceObject(label, name, problem="box_malformed", detail="damaged polygon")
    return SourceObject(label, name, box, problem=rectangle_problem(*box[0], *box[1]))
