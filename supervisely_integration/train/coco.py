"""The splits of a Supervisely project on disk -> COCO annotation files.

The files are read directly: the SDK's readers leave out a whole data set with a warning when one
of its images has no annotation. Coordinates on disk are those of pixels, the last one included,
so a box from 10 to 19 is 10 wide.
"""

import json
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.data.findings import Finding, Illustration, finding
from rtdetrv2_pytorch.src.misc.errors import DatasetError

from ..masks import MASKS, check_mask

logger = logging.getLogger(__name__)

_ANNOTATION = ".json"
_NESTED = "datasets"  # folder between a data set and its children
_NAMES_SHOWN = 10

_RECTANGLE = "rectangle"
_OF_POINTS = (_RECTANGLE, "polygon", "line")
# A point has no box, and neither has what is drawn in three dimensions.
_HAVE_A_BOX = frozenset(
    {
        "polygon",
        "line",
        *MASKS,
        "multipolygon",
        "oriented_bbox",
        "graph",
        "cuboid",
        "cuboid_2d",
    }
)
# What reading a geometry raises when it is damaged depends on the geometry.
_DAMAGED = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    OSError,
    RuntimeError,
)

Box = tuple[float, float, float, float]  # left, top, right, bottom: edges, not pixels


@dataclass(frozen=True)
class SplitReport:
    """What became of one split."""

    name: str
    img_folder: Path
    ann_file: Path
    num_images: int
    boxes: Mapping[str, int]  # by class, in the order of the classes
    left_out: Mapping[str, Mapping[str, int]]  # class -> shape -> objects that became no boxes
    unusable: Sequence[str] = ()  # objects that are damaged, or lie outside their image
    num_given: int = 0  # images and annotations on disk, each with or without the other
    num_objects: int = 0  # in the annotations that could be read
    not_selected: Mapping[str, int] = field(default_factory=dict)  # objects of other classes
    findings: Sequence[Finding] = ()  # what the annotation files of COCO do not show any more

    @property
    def num_boxes(self) -> int:
        """Boxes of all classes."""
        return sum(self.boxes.values())


@dataclass(frozen=True)
class CocoData:
    """Both splits, ready to train on, and what people should know about them."""

    train: SplitReport
    val: SplitReport
    warnings: list[str]


@dataclass(frozen=True)
class _Item:
    image: Path
    annotation: Path


@dataclass
class _Figures:
    """Collects the objects of a split."""

    category_of: Mapping[str, int]
    convert_shapes: bool
    annotations: list[dict[str, Any]] = field(default_factory=list)
    boxes: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, Counter[str]] = field(default_factory=dict)
    unusable: list[str] = field(default_factory=list)
    not_selected: Counter[str] = field(default_factory=Counter)
    num_objects: int = 0
    split: str = ""
    findings: list[Finding] = field(default_factory=list)

    def add(self, figure: Mapping[str, Any], image: Mapping[str, Any]) -> None:
        """Take one object of an image: as a box, or into one of the lists."""
        self.num_objects += 1
        title = str(figure.get("classTitle"))
        if title not in self.category_of:
            self.not_selected[title] += 1
            return
        shape = str(figure.get("geometryType") or figure.get("shape") or "unknown")
        if shape != _RECTANGLE and not (self.convert_shapes and shape in _HAVE_A_BOX):
            self.left_out.setdefault(title, Counter())[shape] += 1
            return
        name = f"{shape} {figure.get('id')} of {title!r}"
        kind, drawn, box = "annotation_malformed", None, None
        try:
            drawn = _box(figure, shape, (image["width"], image["height"]))
            kind, box = "box_outside", _inside(drawn, image["width"], image["height"])
        except _DAMAGED as error:
            logger.debug("%s: damaged %s: %r", image["file_name"], shape, error)
        if box is None:
            self.unusable.append(f"{image['file_name']}: {name}")
        else:
            kind = "box_out_of_bounds"
        if box is None or box != drawn:
            self._note(kind, image, name, drawn)
        if box is None:
            return
        self.boxes[title] += 1
        left, top, right, bottom = box
        self.annotations.append(
            {
                "id": len(self.annotations) + 1,
                "image_id": image["id"],
                "category_id": self.category_of[title],
                "bbox": [left, top, right - left, bottom - top],
                "area": (right - left) * (bottom - top),
                "iscrowd": 0,
            }
        )

    def _note(self, kind: str, image: Mapping[str, Any], name: str, drawn: Box | None) -> None:
        size_wh = image["width"], image["height"]
        picture = Illustration(image["path"], size_wh) if "path" in image else None
        boxes = [drawn] if drawn is not None else []
        where = image["file_name"]
        self.findings.append(
            finding(kind, where, name, split=self.split, picture=picture, boxes=boxes)
        )


def write_coco(
    train_dir: Path,
    val_dir: Path,
    output_dir: Path,
    classes: Sequence[str],
    *,
    convert_shapes: bool,
) -> CocoData:
    """Write `instances_train.json` and `instances_val.json`; images stay where they are.

    Args:
        train_dir: data set, or folder of data sets, of the training split.
        val_dir: the same of the validation split.
        output_dir: folder for the two files; made if needed.
        classes: selected classes; their categories are 1..K in this order.
        convert_shapes: whether objects that are no rectangles become their boxes; otherwise they
            are left out, and reported.

    Raises:
        DatasetError: if a split has no image that can be used, or no box.
    """
    if not classes:
        raise DatasetError("no class is selected; select at least one")
    output_dir.mkdir(parents=True, exist_ok=True)
    train, val = (
        _write_split(name, Path(folder), output_dir, classes, convert_shapes=convert_shapes)
        for name, folder in (("train", train_dir), ("val", val_dir))
    )
    warnings = [*_warnings(train), *_warnings(val)]
    for line in warnings:
        logger.warning("%s", line)
    for report in (train, val):
        _check_has_boxes(report, convert_shapes=convert_shapes)
        logger.info("%s: %d images, %d boxes", report.name, report.num_images, report.num_boxes)
    return CocoData(train, val, warnings)


def annotation_file(folder: Path, split: str) -> Path:
    """Where `write_coco` puts the annotations of a split, "train" or "val"."""
    return folder / f"instances_{split}.json"


def box_objects(
    content: Mapping[str, Any], classes: Sequence[str], image: str
) -> list[dict[str, Any]]:
    """Objects of one annotation as rectangles of the same format: the boxes to train on.

    Args:
        content: of an annotation file.
        classes: selected classes.
        image: name of the image.
    """
    figures = _Figures({title: number for number, title in enumerate(classes)}, convert_shapes=True)
    width, height = _size_wh(content, Path(image))
    for figure in content.get("objects") or ():
        figures.add(figure, {"id": 0, "file_name": image, "width": width, "height": height})
    return [
        {
            "classTitle": classes[each["category_id"]],
            "geometryType": _RECTANGLE,
            "description": "",
            "tags": [],
            "points": {"exterior": [[x, y], [x + w - 1, y + h - 1]], "interior": []},
        }
        for each in figures.annotations
        for x, y, w, h in [each["bbox"]]
    ]


def images_on_disk(project_dir: Path) -> dict[str, set[str]]:
    """Names of the images of a downloaded project, by the path of their data set.

    Args:
        project_dir: the project; a child data set is named "parent/child".
    """
    project_dir = Path(project_dir)
    return {
        _dataset_path(folder, project_dir): {path.name for path in _files(folder / "img")}
        for folder in dataset_folders(project_dir)
    }


def check_complete(project_dir: Path, expected: Mapping[str, Collection[str]]) -> None:
    """Compare a downloaded project with what there was to download.

    A download that fails for single images only logs it, and training would go on with fewer.

    Args:
        project_dir: the downloaded project.
        expected: names of images by the path of their data set, "parent/child".

    Raises:
        DatasetError: listing images that did not arrive.
    """
    present = images_on_disk(project_dir)
    missing = [
        f"{dataset}/{name}"
        for dataset, names in expected.items()
        for name in sorted(set(names) - present.get(dataset, set()))
    ]
    if missing:
        total = sum(len(set(names)) for names in expected.values())
        raise DatasetError(
            f"{len(missing)} of {total} images did not arrive: {_listed(missing)}; start again, "
            "and if they are missing again, look at them in the project"
        )


def _write_split(
    name: str, folder: Path, output_dir: Path, classes: Sequence[str], *, convert_shapes: bool
) -> SplitReport:
    items = [item for dataset in dataset_folders(folder) for item in _items(dataset)]
    if not items:
        raise DatasetError(f"the {name} split has no images; choose another split, or add some")
    category_of = {title: number for number, title in enumerate(classes, start=1)}
    figures = _Figures(category_of, convert_shapes, split=name)
    images: list[dict[str, Any]] = []
    for item in items:
        # With the data set's folder: equal names in different data sets are different images.
        file_name = item.image.relative_to(folder).as_posix()
        try:
            content, (width, height) = _usable(item)
        except _Unusable as error:
            figures.findings.append(finding(error.kind, file_name, str(error), split=name))
            continue
        if _has_bom(item.annotation):
            figures.findings.append(finding("byte_order_mark", item.annotation.name, split=name))
        image = {"id": len(images) + 1, "file_name": file_name, "width": width, "height": height}
        images.append(image)
        for figure in content.get("objects") or ():
            figures.add(figure, {**image, "path": item.image})
    if not images:
        raise DatasetError(
            f"the {name} split has {len(items)} images and none can be used, the first because of "
            f"{figures.findings[0]}; repair the annotations, or choose another split"
        )
    ann_file = annotation_file(output_dir, name)
    coco = {
        "images": images,
        "annotations": figures.annotations,
        "categories": [{"id": number, "name": title} for title, number in category_of.items()],
    }
    ann_file.write_text(json.dumps(coco, ensure_ascii=False), encoding="utf-8")
    return SplitReport(
        name=name,
        img_folder=folder,
        ann_file=ann_file,
        num_images=len(images),
        boxes={title: figures.boxes[title] for title in classes},
        left_out=figures.left_out,
        unusable=figures.unusable,
        num_given=len(items),
        num_objects=figures.num_objects,
        not_selected=figures.not_selected,
        findings=figures.findings,
    )


# Files


def dataset_folders(folder: Path) -> list[Path]:
    """Folders with images and annotations, at any depth; the given one may be one itself.

    Whatever they are called: the SDK's reader leaves out those whose names end in "img" or "meta".
    """
    found = []
    pending = [folder]
    while pending:
        current = pending.pop()
        children = {path.name: path for path in _subfolders(current)}
        parts = [children[name] for name in ("img", "ann") if name in children]
        # One of the two alone is a data set too, whose other half did not arrive.
        if len(parts) == 2 or any(_files(part) for part in parts):
            found.append(current)
            children = {name: path for name, path in children.items() if name == _NESTED}
        pending += children.values()
    return sorted(found)


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _files(folder: Path) -> list[Path]:
    """Files in a folder, by name; none if there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def _dataset_path(folder: Path, project_dir: Path) -> str:
    parts = folder.relative_to(project_dir).parts
    # Every second part of a nested path is the folder between parent and child.
    return "/".join(part for i, part in enumerate(parts) if not (i % 2 and part == _NESTED))


def _items(dataset: Path) -> Iterator[_Item]:
    """Images with their annotation files; a file of either kind may not be there."""
    annotations = {path.name for path in _files(dataset / "ann")}
    for image in _files(dataset / "img"):
        names = [f"{image.name}{_ANNOTATION}", f"{image.stem}{_ANNOTATION}"]  # new and old style
        chosen = next((name for name in names if name in annotations), names[0])
        annotations.discard(chosen)
        yield _Item(image, dataset / "ann" / chosen)
    for name in sorted(annotations):
        yield _Item(dataset / "img" / name.removesuffix(_ANNOTATION), dataset / "ann" / name)


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


class _Unusable(Exception):  # noqa: N818 (what is said of one image, it never leaves this file)
    """An image that cannot be trained on, because of its files."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def _usable(item: _Item) -> tuple[Mapping[str, Any], tuple[int, int]]:
    """Content and size of an annotation; one that cannot be used costs its own image only."""
    if not item.image.exists() and not item.image.is_symlink():
        raise _Unusable("annotation_without_image", f"there is {item.annotation.name} only")
    if not item.annotation.is_file():
        raise _Unusable("unlisted_image", f"there is no {item.annotation.name}")
    try:
        content = json.loads(item.annotation.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _Unusable("annotation_malformed", f"is not in UTF-8 ({error.reason})") from error
    except (OSError, ValueError, RecursionError) as error:
        raise _Unusable("annotation_malformed", f"cannot be read ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("objects") or [], list):
        raise _Unusable("annotation_malformed", "is no Supervisely annotation")
    objects = content.get("objects") or []
    if not all(isinstance(each, dict) for each in objects):
        raise _Unusable("annotation_malformed", "holds an object that is none")
    try:
        return content, _size_wh(content, item.annotation)
    except DatasetError as error:
        raise _Unusable("annotation_malformed", "has no width and height") from error


def _has_bom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(3) == b"\xef\xbb\xbf"


def _size_wh(content: Mapping[str, Any], path: Path) -> tuple[int, int]:
    try:
        return int(content["size"]["width"]), int(content["size"]["height"])
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: has no width and height; start again") from error


# Shapes


def _box(figure: Mapping[str, Any], shape: str, size_wh: tuple[int, int]) -> Box:
    if shape in _OF_POINTS:
        points = figure["points"]["exterior"]
        xs, ys = [float(x) for x, _ in points], [float(y) for _, y in points]
        return min(xs), min(ys), max(xs) + 1, max(ys) + 1
    if shape in MASKS:
        check_mask(figure, size_wh)
    # Loading the SDK takes seconds, and projects of rectangles can do without.
    from supervisely.annotation.json_geometries_map import GET_GEOMETRY_FROM_STR

    around = GET_GEOMETRY_FROM_STR(shape).from_json(figure).to_bbox()
    return around.left, around.top, around.right + 1, around.bottom + 1


def _inside(box: Box, width: int, height: int) -> Box | None:
    """The part of a box inside its image, if there is one."""
    left, top = max(box[0], 0.0), max(box[1], 0.0)
    right, bottom = min(box[2], float(width)), min(box[3], float(height))
    return (left, top, right, bottom) if right > left and bottom > top else None


# What people are told


def _check_has_boxes(report: SplitReport, *, convert_shapes: bool) -> None:
    if report.num_boxes:
        return
    shapes = sum((Counter(counts) for counts in report.left_out.values()), Counter[str]())
    hint = f"; there are {_counted(shapes)}" if shapes else ""
    remedy = "choose another split or other classes, or label the images"
    if not convert_shapes and _HAVE_A_BOX & shapes.keys():
        remedy = "switch on the conversion of class shapes"
    raise DatasetError(
        f"the {report.name} split has {report.num_images} images but no box of the selected "
        f"classes{hint}; {remedy}"
    )


def _counted(shapes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} of shape {shape}" for shape, count in sorted(shapes.items()))


def _warnings(report: SplitReport) -> Iterator[str]:
    for title, shapes in report.left_out.items():
        yield f"{report.name}: class {title!r}: left out {_counted(shapes)}"
    for title, count in report.boxes.items():
        if count == 0:
            effect = "cannot be learned" if report.name == "train" else "cannot be measured"
            yield f"{report.name}: class {title!r} has no box and {effect}"
    unused = report.num_given - report.num_images
    if unused:
        of_files = ("annotation_without_image", "unlisted_image", "annotation_malformed")
        names = [
            f"{f.where} ({f.detail})"
            for f in report.findings
            if f.kind.name in of_files and f.picture is None
        ]
        yield (
            f"{report.name}: {unused} of {report.num_given} images cannot be used: {_listed(names)}"
        )
    if report.unusable:
        yield (
            f"{report.name}: {len(report.unusable)} objects are damaged or outside their images "
            f"and left out: {_listed(report.unusable)}"
        )
