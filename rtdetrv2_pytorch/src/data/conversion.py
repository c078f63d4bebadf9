"""Conversion of a split in any format to a COCO annotation file."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..misc.files import write_text
from .findings import Box, Finding, Findings, Illustration, UnusableError
from .images.orientation import read_oriented
from .readers.geometry import clip_box
from .readers.source import SourceImage, SourceObject

_TOLERANCE_PX = 0.01  # rounding errors


@dataclass(frozen=True)
class Split:
    """A split in COCO format."""

    name: str
    ann_file: Path
    img_folder: Path
    num_images: int = 0
    boxes: Mapping[str, int] = field(default_factory=dict)  # by class, if converted
    findings: Findings = field(default_factory=Findings)  # of the conversion


def write_split(
    images: Iterable[SourceImage],
    class_names: Sequence[str],
    ann_file: Path,
    img_folder: Path,
    findings: Findings,
) -> Split:
    """Write the annotation file of a split; images stay where they are.

    Boxes are clipped to their image, and crowd regions are kept. Images of whose objects none can
    be used are left out. The categories of `class_names`
    are 1..K; file names are relative to `img_folder`; `findings.split` names the split.
    """
    category_of = {name: number for number, name in enumerate(class_names, start=1)}
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image in images:
        try:
            size_wh = _size_of(image)
        except UnusableError as error:
            lost = len(image.objects)
            findings.skip_image(error, image.name, image.path, split=findings.split, objects=lost)
            continue
        parts = [_usable_box(o, image, size_wh, category_of, findings) for o in image.objects]
        pairs = list(zip(image.objects, parts, strict=True))
        if not any(parts) and image.shows_any_of(category_of):
            findings.skip_unlearnable(image.name, len(pairs), image.path)
            continue
        sides = {} if size_wh is None else {"width": size_wh[0], "height": size_wh[1]}
        file_name = Path(os.path.relpath(image.path, img_folder)).as_posix()
        entries.append({"id": len(entries) + 1, "file_name": file_name, **sides})
        for each, box in pairs:
            if box is not None:
                x1, y1, x2, y2 = box
                area = (x2 - x1) * (y2 - y1)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": len(entries),
                        "category_id": category_of[each.class_name],
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": area if each.area is None else each.area,
                        "iscrowd": int(each.is_crowd),
                    }
                )
    categories = [{"id": number, "name": name} for name, number in category_of.items()]
    content = {"images": entries, "annotations": annotations, "categories": categories}
    _write(ann_file, json.dumps(content, ensure_ascii=False))
    counts = Counter(entry["category_id"] for entry in annotations)
    boxes = {name: counts[number] for name, number in category_of.items()}
    return Split(findings.split, ann_file, img_folder, len(entries), boxes, findings)


def _size_of(image: SourceImage) -> tuple[int, int] | None:
    if not os.path.lexists(image.path):
        raise UnusableError("missing_image")
    return read_oriented(image.path, decode=False).size_wh if image.is_relative else image.size_wh


def _usable_box(
    each: SourceObject,
    image: SourceImage,
    size_wh: tuple[int, int] | None,
    category_of: Mapping[str, int],
    findings: Findings,
) -> Box | None:
    """Return the part of a box inside its image, or None; add problems to the findings."""
    kind, drawn, box = each.problem_among(category_of), None, None
    if not kind:
        drawn = box = each.box
        if image.is_relative and size_wh is not None:
            width, height = size_wh
            drawn = box = (drawn[0] * width, drawn[1] * height, drawn[2] * width, drawn[3] * height)
        if size_wh is not None:
            try:
                (x1, y1), (x2, y2) = clip_box((drawn[:2], drawn[2:]), size_wh)
                box = (x1, y1, x2, y2)
            except UnusableError as error:
                kind, box = error.kind, None
    is_clipped = (
        drawn is not None
        and box is not None
        and max(abs(a - b) for a, b in zip(drawn, box, strict=True)) > _TOLERANCE_PX
    )
    if kind or is_clipped:
        findings.add(
            Finding(
                kind or "box_out_of_bounds",
                image.name,
                each.description,
                picture=Illustration(image.path, size_wh),
                boxes=[drawn] if drawn is not None else [],
                lost_objects=int(box is None),
            )
        )
    return box


def _write(path: Path, text: str) -> None:
    """Write a file atomically: the ranks of a run write the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
