"""Splits of a Supervisely project on disk -> COCO annotation files."""

import logging
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.data.conversion import Split, write_split
from rtdetrv2_pytorch.src.data.findings import Finding, Findings, UnusableError
from rtdetrv2_pytorch.src.data.readers.folders import has_byte_order_mark
from rtdetrv2_pytorch.src.data.readers.geometry import clip_box
from rtdetrv2_pytorch.src.data.readers.masks import MASKS, check_mask
from rtdetrv2_pytorch.src.data.readers.source import (
    RECTANGLE,
    Point,
    SourceImage,
    SourceObject,
    rectangle_problem,
    shorten,
)
from rtdetrv2_pytorch.src.data.readers.supervisely import (
    ImageFiles,
    annotated_size,
    dataset_folders,
    dataset_path,
    image_files,
    is_crowd,
    points_box,
    read_annotation,
)
from rtdetrv2_pytorch.src.misc.errors import DatasetError
from rtdetrv2_pytorch.src.misc.text import counted

logger = logging.getLogger(__name__)

_MAX_NAMES = 10  # in a message

_WITH_POINTS = (RECTANGLE, "polygon", "line")
# Points and three-dimensional shapes have no box.
_CONVERTIBLE = frozenset(
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
# A damaged geometry raises different errors, depending on its shape.
_DAMAGED = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    OSError,
    RuntimeError,
)


@dataclass(frozen=True)
class CocoData:
    """Both splits in COCO format."""

    train: Split
    val: Split


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
        train_dir: dataset, or folder of datasets, of the training split.
        val_dir: dataset, or folder of datasets, of the validation split.
        output_dir: folder for the two files; created if needed.
        classes: selected classes; their categories are 1..K in this order.
        convert_shapes: whether to convert non-rectangular objects to their boxes; otherwise they
            are skipped and reported.

    Raises:
        DatasetError: if a split has no usable image, or no box.
    """
    if not classes:
        raise DatasetError("no class is selected; select at least one")
    train, val = (
        _write_split(name, Path(folder), output_dir, classes, convert_shapes=convert_shapes)
        for name, folder in (("train", train_dir), ("val", val_dir))
    )
    return CocoData(train, val)


def annotation_file(folder: Path, split: str) -> Path:
    """Return the annotation file that `write_coco` writes for a split, "train" or "val"."""
    return folder / f"instances_{split}.json"


def box_objects(
    content: Mapping[str, Any], classes: Sequence[str], image: str
) -> list[dict[str, Any]]:
    """Convert the objects of an annotation, without crowd regions, to those that are learned.

    Args:
        content: of an annotation file.
        classes: selected classes.
        image: name of the image, for messages.

    Raises:
        DatasetError: if the annotation has no width and height.
    """
    size_wh = annotated_size(content)
    if size_wh is None:
        raise DatasetError(f"{image}: has no width and height; start again")
    rectangles = []
    for each in _FigureConverter(classes, convert_shapes=True).objects(content, size_wh):
        if each.is_crowd:  # would count as a missed object
            continue
        try:
            (x1, y1), (x2, y2) = clip_box(each.points, size_wh)
        except (UnusableError, ValueError):
            continue
        rectangles.append(
            {
                "classTitle": each.class_name,
                "geometryType": RECTANGLE,
                "description": "",
                "tags": [],
                "points": {"exterior": [[x1, y1], [x2 - 1, y2 - 1]], "interior": []},
            }
        )
    return rectangles


def images_on_disk(project_dir: Path) -> dict[str, set[str]]:
    """Return the names of the images of a downloaded project, by dataset path ("parent/child")."""
    project_dir = Path(project_dir)
    return {
        dataset_path(folder, project_dir): {path.name for path in (folder / "img").glob("*")}
        for folder in dataset_folders(project_dir)
    }


def check_complete(project_dir: Path, expected: Mapping[str, Collection[str]]) -> None:
    """Check that a download is complete: the SDK only logs images that it failed to download.

    Args:
        project_dir: the downloaded project.
        expected: image names by dataset path, "parent/child".

    Raises:
        DatasetError: listing the missing images.
    """
    present = images_on_disk(project_dir)
    missing = [
        f"{dataset}/{name}"
        for dataset, names in expected.items()
        for name in sorted(set(names) - present.get(dataset, set()))
    ]
    if missing:
        total = sum(len(set(names)) for names in expected.values())
        more = f" and {len(missing) - _MAX_NAMES} more" if len(missing) > _MAX_NAMES else ""
        raise DatasetError(
            f"{len(missing)} of {counted(total, 'image')} were not downloaded: "
            f"{', '.join(missing[:_MAX_NAMES])}{more}; start again, and if they are missing again, "
            "check them in the project"
        )


def _write_split(
    name: str, folder: Path, output_dir: Path, classes: Sequence[str], *, convert_shapes: bool
) -> Split:
    findings = Findings(name)
    files = [item for dataset in dataset_folders(folder) for item in image_files(dataset)]
    if not files:
        raise DatasetError(f"the {name} split has no images; choose another split, or add some")
    converter = _FigureConverter(classes, convert_shapes=convert_shapes)
    split = write_split(
        _images(files, folder, converter, findings),
        classes,
        annotation_file(output_dir, name),
        folder,
        findings,
    )
    if not split.num_images:
        raise DatasetError(
            f"the {name} split has {counted(len(files), 'image')} and none can be used, the first "
            f"because of {findings.items[0]}; {converter.hint() or 'repair the annotations'}, or "
            "choose another split"
        )
    converter.report(findings)
    num_boxes = sum(split.boxes.values())
    if not num_boxes:
        raise DatasetError(
            f"the {name} split has {counted(split.num_images, 'image')} but no box of the selected "
            f"classes; {converter.hint() or 'choose other classes, label the images'}, or choose "
            "another split"
        )
    logger.info("%s: %s, %s", name, counted(split.num_images, "image"), counted(num_boxes, "box"))
    return split


def _images(
    files: Sequence[ImageFiles], folder: Path, converter: "_FigureConverter", findings: Findings
) -> Iterator[SourceImage]:
    for item in files:
        # With the folder of the dataset: equal names in different datasets are different images.
        name = item.image.relative_to(folder).as_posix()
        try:
            if not os.path.lexists(item.image):
                detail = f"only {item.annotation.name} exists"
                raise UnusableError("annotation_without_image", detail)
            content = read_annotation(item.annotation)
            size_wh = annotated_size(content)
            if size_wh is None:
                raise UnusableError("annotation_malformed", "has no width and height")
        except UnusableError as error:
            findings.skip_image(error, name, item.image, split=findings.split)
            continue
        if has_byte_order_mark(item.annotation):
            findings.add(Finding("byte_order_mark", item.annotation.name))
        num_before = converter.num_unsupported
        objects = list(converter.objects(content, size_wh))
        num_unsupported = converter.num_unsupported - num_before
        if num_unsupported and all(each.problem for each in objects):
            detail = f"{counted(num_unsupported, 'object')} of unsupported shape"
            reason = UnusableError("objects_unusable", detail)
            lost = len(objects)
            findings.skip_image(reason, name, item.image, split=findings.split, objects=lost)
            continue
        yield SourceImage(findings.split, name, item.image, objects, size_wh)


class _FigureConverter:
    """Converts figures to objects with boxes, and counts the others.

    Args:
        classes: selected classes.
        convert_shapes: whether to convert non-rectangular objects to their boxes.
    """

    def __init__(self, classes: Sequence[str], *, convert_shapes: bool) -> None:
        self._classes = frozenset(classes)
        self._convert_shapes = convert_shapes
        self._unsupported: Counter[tuple[str, str]] = Counter()  # by class and shape
        self._not_selected: Counter[str] = Counter()

    def objects(
        self, content: Mapping[str, Any], size_wh: tuple[int, int]
    ) -> Iterator[SourceObject]:
        """Yield the objects of an annotation that have a box.

        Args:
            content: of the annotation file.
            size_wh: (width, height) of the image.
        """
        for number, figure in enumerate(content.get("objects") or (), start=1):
            if not isinstance(figure, dict):
                label, detail = f"object {number}", shorten(figure)
                yield SourceObject(label, "", problem="annotation_malformed", detail=detail)
                continue
            title = str(figure.get("classTitle"))
            shape = str(figure.get("geometryType") or figure.get("shape") or "unknown")
            is_supported = shape == RECTANGLE or (self._convert_shapes and shape in _CONVERTIBLE)
            if title not in self._classes:
                self._not_selected[title] += 1
            elif not is_supported:
                self._unsupported[title, shape] += 1
            else:
                label = f"{shape} {figure.get('id')} of {title!r}"
                try:
                    points = _box(figure, shape, size_wh)
                except _DAMAGED as error:
                    logger.debug("damaged %s: %r", shape, error)
                    yield SourceObject(label, title, problem="annotation_malformed")
                else:
                    problem = rectangle_problem(*points[0], *points[1])
                    crowd = is_crowd(figure)
                    yield SourceObject(label, title, points, problem=problem, is_crowd=crowd)

    @property
    def num_unsupported(self) -> int:
        """Number of objects whose shape has no box, or is not converted."""
        return self._unsupported.total()

    def report(self, findings: Findings) -> None:
        """Add the objects that have been skipped."""
        for (title, shape), count in self._unsupported.items():
            findings.add(Finding("unknown_geometry", title, shape, count=count, lost_objects=count))
        for title, count in self._not_selected.items():
            findings.add(Finding("class_not_selected", title, count=count, lost_objects=count))

    def hint(self) -> str:
        """Return the skipped shapes and the remedy, for a split without boxes."""
        shapes: Counter[str] = Counter()
        for (_, shape), count in self._unsupported.items():
            shapes[shape] += count
        counts = ", ".join(f"{count} of shape {shape}" for shape, count in sorted(shapes.items()))
        if not self._convert_shapes and _CONVERTIBLE & shapes.keys():
            return f"there are {counts}; enable the conversion of class shapes"
        return f"there are {counts}, without boxes; choose other classes" if counts else ""


def _box(figure: Mapping[str, Any], shape: str, size_wh: tuple[int, int]) -> tuple[Point, Point]:
    if shape in _WITH_POINTS:
        return points_box(figure)
    if shape in MASKS:
        check_mask(figure, size_wh)
    # Importing the SDK takes seconds, and projects with rectangles only do not need it.
    from supervisely.annotation.json_geometries_map import GET_GEOMETRY_FROM_STR

    around = GET_GEOMETRY_FROM_STR(shape).from_json(figure).to_bbox()
    return (around.left, around.top), (around.right + 1, around.bottom + 1)
