"""COCO: annotation files of JSON, with their images anywhere in the folder."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from rtdetrv2_pytorch.src.data.categories import CategoryId, CategoryTable, normalise_id
from rtdetrv2_pytorch.src.data.coco_dataset import read_coco_json
from rtdetrv2_pytorch.src.misc.errors import DatasetError

from .decoding import Picture, Point, clip_box, read_picture
from .source import (
    RECTANGLE,
    ImportItem,
    ImportSource,
    Ledger,
    UniqueNames,
    declared_size,
    is_image,
    list_files,
    make_annotation,
    make_meta,
    make_object,
    split_of,
)

LOOKED_FOR = "a .json file with the lists images, annotations and categories"
_DEPTH = 3  # folders below the given one where annotation files are looked for
_PROBE_BYTES = 1 << 16
_SUPERVISELY_PARTS = ("ann", "img_info")


@dataclass
class _File:
    """One annotation file."""

    path: Path
    dataset: str
    title_of: Mapping[CategoryId, str]
    num_images: int


@dataclass
class _Image:
    """One image of a file, with the objects that refer to it."""

    file_name: str
    size_wh: tuple[int, int] | None
    objects: list[Mapping[str, Any]] = field(default_factory=list)


def recognise(folder: Path) -> bool:
    """Whether a folder looks like a data set in this format."""
    return any(_looks_like_coco(path) for path in _json_files(folder))


def read(folder: Path) -> ImportSource:
    """Read a folder.

    Objects are imported as rectangles, from their `bbox` or else around their polygons: that is
    what a detector learns. A data set of the project is made of each annotation file.

    Raises:
        DatasetError: if no annotation file can be read.
    """
    ledger = Ledger()
    files = list(_files(folder, ledger))
    if not files:
        seen = "; ".join(f"{s.what}: {s.reason}" for s in ledger.skips[:3])
        raise DatasetError(
            f"{folder}: no usable COCO annotation file; looked for {LOOKED_FOR}"
            + (f" ({seen})" if seen else "")
        )
    titles = dict.fromkeys(title for file in files for title in file.title_of.values())
    meta = make_meta(dict.fromkeys(titles, RECTANGLE))
    items = _items(folder, files, ledger)
    return ImportSource("coco", meta, items, sum(f.num_images for f in files), ledger)


# Annotation files


def _json_files(folder: Path) -> list[Path]:
    """Files that may be annotation files: those called "instances", if there are any."""
    found = [
        path
        for path in list_files(folder, _DEPTH)
        if path.suffix.lower() == ".json" and path.parent.name not in _SUPERVISELY_PARTS
    ]
    return [path for path in found if "instances" in path.name] or found


def _looks_like_coco(path: Path) -> bool:
    """Whether the beginning or the end of a file names one of the lists, without reading it all."""
    try:
        with path.open("rb") as file:
            start = file.read(_PROBE_BYTES)
            file.seek(max(path.stat().st_size - _PROBE_BYTES, 0))
            text = start + file.read()
    except OSError:
        return False
    keys = (b'"images"', b'"annotations"', b'"categories"')
    is_named_so = "instances" in path.name or "coco" in path.name.lower()
    return sum(key in text for key in keys) >= (1 if is_named_so else 2)


def _files(folder: Path, ledger: Ledger) -> Iterator[_File]:
    """Annotation files that can be used; of the others, what is wrong is noted."""
    paths = [path for path in _json_files(folder) if _looks_like_coco(path)]
    datasets = _dataset_names(paths, folder)
    for path, dataset in zip(paths, datasets, strict=True):
        what = path.relative_to(folder).as_posix()
        try:
            content = read_coco_json(path)
            table = _categories(content, what, ledger)
        except DatasetError as error:
            reason = str(error).removeprefix(f"{path}: ")
            ledger.note(what, f"annotation file that cannot be used: {reason}")
            continue
        title_of = dict(zip(table.ids, table.names, strict=True))
        yield _File(path, dataset, title_of, len(content["images"]))


def _categories(content: Mapping[str, Any], what: str, ledger: Ledger) -> CategoryTable:
    valid = []
    for category in content["categories"]:
        if _is_category(category):
            valid.append(category)
        else:
            ledger.note(f"{what}: {str(category)[:80]}", "category without id or name")
    used = {
        normalise_id(a.get("category_id")) for a in content["annotations"] if isinstance(a, dict)
    }
    return CategoryTable.from_coco(valid, used, source=what)


def _is_category(entry: Any) -> bool:
    return isinstance(entry, dict) and "id" in entry and bool(str(entry.get("name") or "").strip())


def _dataset_names(paths: Sequence[Path], folder: Path) -> list[str]:
    """The splits that files are named after; their own names where those are not unique."""
    splits = [split_of(p.stem, p.parent.name if p.parent != folder else "") for p in paths]
    names = UniqueNames()
    return [
        split if split and splits.count(split) == 1 else names.take("", _stem(path))
        for path, split in zip(paths, splits, strict=True)
    ]


def _stem(path: Path) -> str:
    stem = path.stem.removeprefix("instances_").removesuffix(".coco").strip("_")
    return path.parent.name if stem in ("", "annotations") else stem


# Images


class _ImageFolder:
    """Finds the files that the names of an annotation file mean.

    Args:
        folder: the data set.
    """

    def __init__(self, folder: Path) -> None:
        self._by_name: dict[str, list[PurePosixPath]] = {}
        for path in list_files(folder):
            if is_image(path):
                relative = PurePosixPath(path.relative_to(folder).as_posix())
                self._by_name.setdefault(path.name, []).append(relative)
        self._folder = folder

    def base_of(self, names: Sequence[str], ann_file: Path, dataset: str) -> PurePosixPath:
        """The folder below which most of these names are files.

        Of folders with equally many, the one of the annotation file, then one that is named after
        the split.
        """
        hits: Counter[PurePosixPath] = Counter()
        for name in names:
            wanted = PurePosixPath(name.replace("\\", "/")).parts
            for path in self._by_name.get(wanted[-1] if wanted else "", ()):
                if path.parts[-len(wanted) :] == wanted:
                    hits[PurePosixPath(*path.parts[: -len(wanted)])] += 1
        home = PurePosixPath(ann_file.parent.relative_to(self._folder).as_posix())

        def rank(base: PurePosixPath) -> tuple[int, bool, bool, int]:
            is_named = split_of(*reversed(base.parts)) == dataset or dataset in base.parts
            return hits[base], base == home, is_named, -len(base.parts)

        return max(sorted(hits), key=rank, default=home)

    def find(self, base: PurePosixPath, name: str) -> Path | None:
        """The file of this name below a folder."""
        wanted = PurePosixPath(base, name.replace("\\", "/"))
        known = self._by_name.get(wanted.name, ())
        return self._folder / wanted if wanted in known else None


def _items(folder: Path, files: Sequence[_File], ledger: Ledger) -> Iterator[ImportItem]:
    image_folder = _ImageFolder(folder)
    names = UniqueNames()
    for file in files:
        content = read_coco_json(file.path)
        images = _images(content, file, ledger)
        base = image_folder.base_of([i.file_name for i in images], file.path, file.dataset)
        del content
        for image in images:
            path = image_folder.find(base, image.file_name)
            what = f"{file.dataset}: {image.file_name}"
            try:
                if path is None:
                    raise DatasetError("image file missing")
                picture = read_picture(path)
                is_turned = picture.is_drawn_before_turning(image.size_wh)
            except DatasetError as error:
                ledger.skip_image(what, str(error), objects=len(image.objects))
                continue
            objects = _objects(image, file, picture, ledger, is_turned=is_turned)
            name = names.take(file.dataset, image.file_name)
            yield ImportItem(file.dataset, name, path, make_annotation(picture.size_wh, objects))


def _images(content: Mapping[str, Any], file: _File, ledger: Ledger) -> list[_Image]:
    """Images with their objects; entries that cannot be used are skipped."""
    images: dict[CategoryId, _Image] = {}
    for entry in content["images"]:
        ledger.given_images += 1
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if not name or not isinstance(name, str) or "id" not in entry:
            what = f"{file.dataset}: {str(entry)[:80]}"
            ledger.skip_image(what, "image entry without id or file_name")
        elif normalise_id(entry["id"]) in images:
            ledger.skip_image(f"{file.dataset}: {name}", "image whose id another image has")
        else:
            images[normalise_id(entry["id"])] = _Image(name, declared_size(entry))
    for entry in content["annotations"]:
        ledger.given_objects += 1
        if not isinstance(entry, dict):
            ledger.skip_object(f"{file.dataset}: {str(entry)[:80]}", "annotation that is no object")
            continue
        image = images.get(normalise_id(entry.get("image_id")))
        if image is None:
            what = f"{file.dataset}: annotation {entry.get('id')}"
            ledger.skip_object(what, "annotation of an image that is not listed")
        else:
            image.objects.append(entry)
    return list(images.values())


# Objects


def _objects(
    image: _Image, file: _File, picture: Picture, ledger: Ledger, *, is_turned: bool
) -> list[dict[str, Any]]:
    objects = []
    for entry in image.objects:
        try:
            title = file.title_of.get(normalise_id(entry.get("category_id")))
            if title is None:
                raise DatasetError("annotation with an unknown category_id")
            if normalise_id(entry.get("iscrowd") or 0) != 0:
                raise DatasetError("crowd region, which is not one object")
            corners = _corners(entry)
            corners = picture.turn(corners) if is_turned else corners
            objects.append(make_object(title, RECTANGLE, clip_box(corners, picture.size_wh)))
        except DatasetError as error:
            what = f"{file.dataset}: {image.file_name}, annotation {entry.get('id')}"
            ledger.skip_object(what, str(error))
    return objects


def _corners(entry: Mapping[str, Any]) -> list[Point]:
    """Corners of the box of an object; of the box around its polygons if it has none."""
    box = entry.get("bbox")
    if not box and isinstance(entry.get("segmentation"), list):
        return _around(entry["segmentation"])
    try:
        x, y, width, height = (float(v) for v in box or ())
    except (TypeError, ValueError) as error:
        raise DatasetError("box that is not four numbers") from error
    if not all(math.isfinite(v) for v in (x, y, width, height)):
        raise DatasetError("box that is not four numbers")
    if width <= 0 or height <= 0:
        raise DatasetError("box without area")
    return [(x, y), (x + width, y + height)]


def _around(polygons: Sequence[Any]) -> list[Point]:
    try:
        xs = [float(v) for polygon in polygons for v in polygon[::2]]
        ys = [float(v) for polygon in polygons for v in polygon[1::2]]
    except (TypeError, ValueError, LookupError) as error:
        raise DatasetError("neither a box nor polygons") from error
    if not xs or not ys:
        raise DatasetError("neither a box nor polygons")
    return [(min(xs), min(ys)), (max(xs), max(ys))]
