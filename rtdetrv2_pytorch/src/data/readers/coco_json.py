"""COCO annotation files: entries of images, objects and categories."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...misc.errors import DatasetError, extra
from ...misc.resources import paused_garbage_collection
from ...misc.text import counted
from ..categories import CategoryId, CategoryTable, normalize_id
from ..findings import Finding, Findings
from .source import Point, SourceImage, SourceObject, declared_size, rectangle_problem, shorten

LISTS = ("images", "annotations", "categories")

Entry = Mapping[str, Any]


def read_coco_json(path: Path) -> dict[str, Any]:
    """Read a COCO file and check its top level.

    Raises:
        DatasetError: if it is missing, invalid JSON, or not in COCO format.
    """
    try:
        with paused_garbage_collection():
            content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}); check the file") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: is not in UTF-8 ({error.reason}); save it as UTF-8") from error
    except json.JSONDecodeError as error:
        raise DatasetError(
            f"{path}: is not valid JSON at line {error.lineno}, column {error.colno} "
            f"({error.msg}); export it again"
        ) from error
    except (ValueError, RecursionError) as error:  # a number too long, or nesting too deep
        raise DatasetError(
            f"{path}: cannot be parsed as JSON ({error}); export it again"
        ) from error
    for key in LISTS:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DatasetError(
                f"{path}: has no list {key!r}; a COCO detection file has images, annotations and "
                "categories"
            )
    return content


def read_categories(
    content: Mapping[str, Any], source: str, used: set[CategoryId] | None = None
) -> CategoryTable:
    """Read the classes of a COCO file; `source` is for messages, `used` are its `used_ids`.

    Raises:
        DatasetError: if there are none, or ids or names repeat.
    """
    used = used_ids(content) if used is None else used
    return CategoryTable.from_coco(content["categories"], used, source=source)


def used_ids(content: Mapping[str, Any]) -> set[CategoryId]:
    """Return the ids of categories that annotations refer to."""
    found = (each.get("category_id") for each in content["annotations"] if isinstance(each, dict))
    # The few different values are normalized, not those of all annotations.
    return {
        normalize_id(id_) for id_ in {id_ for id_ in found if isinstance(id_, int | str | float)}
    }


def image_entries(
    content: Mapping[str, Any], findings: Findings, *, split: str = "", strict: str = ""
) -> dict[CategoryId, Entry]:
    """Return the usable image entries of a file by id; `findings` collects the others.

    With `strict`, the name of the file, a repeated id is an error and not a finding.

    Raises:
        DatasetError: if an id is repeated.
    """
    entries: dict[CategoryId, Entry] = {}
    for entry in content["images"]:
        findings.given_images += 1
        name = _written_name(entry)
        if name is None or "id" not in entry:
            findings.add(
                Finding("image_entry_malformed", shorten(entry), split=split, lost_images=1)
            )
            continue
        if name_of(entry) is None:
            detail = "the name has a NUL character or half of a surrogate pair"
            findings.add(Finding("image_entry_malformed", name, detail, split=split, lost_images=1))
            continue
        image_id = normalize_id(entry["id"])
        if image_id not in entries:
            entries[image_id] = {**entry, "file_name": name} if "file_name" not in entry else entry
        elif strict:
            raise DatasetError(
                f"{strict}: image id {image_id!r} occurs more than once "
                f"({entries[image_id]['file_name']}, {name}); boxes cannot be assigned to images, "
                "give every image its own id"
            )
        else:
            detail = f"has id {image_id!r}, as {entries[image_id]['file_name']}"
            findings.add(Finding("image_entry_malformed", name, detail, split=split, lost_images=1))
    return entries


def without_images(num_entries: int) -> str:
    """Return why a file has no usable image entry, for messages."""
    found = f" with an id and a valid file name ({counted(num_entries, 'image entry')})"
    return f"lists no images{found * bool(num_entries)}"


def name_of(entry: Any) -> str | None:
    """Return the file name of an image entry, or None if it cannot be that of a file."""
    name = _written_name(entry)
    if name is None:
        return None
    try:
        return None if b"\0" in os.fsencode(name) else name
    except UnicodeEncodeError:
        return None


def _written_name(entry: Any) -> str | None:
    """Return the file name of an image entry, or in LVIS the end of its URL."""
    if not isinstance(entry, dict):
        return None
    name = entry.get("file_name")
    if name is None and isinstance(entry.get("coco_url"), str):
        name = "/".join(entry["coco_url"].split("?")[0].split("/")[-2:])
    return name if isinstance(name, str) and name else None


def group_annotations(
    content: Mapping[str, Any],
    images: Mapping[CategoryId, Entry],
    findings: Findings,
    *,
    split: str = "",
) -> dict[CategoryId, list[Entry]]:
    """Return the annotation entries of a file by image id; `findings` collects the others."""
    grouped: dict[CategoryId, list[Entry]] = {}
    for entry in content["annotations"]:
        findings.given_objects += 1
        if not isinstance(entry, dict):
            findings.add(
                Finding("annotation_malformed", shorten(entry), split=split, lost_objects=1)
            )
            continue
        image_id = normalize_id(entry.get("image_id"))
        if image_id in images:
            grouped.setdefault(image_id, []).append(entry)
        else:
            where, detail = f"image {image_id}", f"annotation {shorten(entry.get('id'))}"
            findings.add(
                Finding("annotation_without_image", where, detail, split=split, lost_objects=1)
            )
    return grouped


def make_images(
    entries: Mapping[CategoryId, Entry],
    annotations: dict[CategoryId, list[Entry]],
    class_of: Mapping[CategoryId, str],
    paths: Mapping[CategoryId, Path],
    findings: Findings,
    *,
    split: str = "",
) -> Iterator[SourceImage]:
    """Yield images with their objects; their annotations are removed, to free memory.

    Boxes with numbers written as strings are used, and added to the findings.
    """
    for image_id, entry in entries.items():
        name = entry["file_name"]
        objects = [_object(each, class_of) for each in annotations.get(image_id, ())]
        for each, parsed in zip(annotations.pop(image_id, ()), objects, strict=True):
            bbox = each.get("bbox")
            if not parsed.problem and bbox and any(isinstance(value, str) for value in bbox):
                findings.add(Finding("box_as_text", name, shorten(bbox), split=split))
        yield SourceImage(
            split,
            name,
            paths[image_id],
            objects,
            declared_size(entry.get("width"), entry.get("height")),
            image_id=image_id,
        )


# Objects


def _object(entry: Entry, class_of: Mapping[CategoryId, str]) -> SourceObject:
    label = f"annotation {shorten(entry.get('id'))}"
    class_name = class_of.get(normalize_id(entry.get("category_id")))
    if class_name is None:
        detail = shorten(entry.get("category_id"))
        return SourceObject(label, "", problem="unknown_class", detail=detail)
    bbox, mask = entry.get("bbox"), entry.get("segmentation")
    points, problem = _corners(bbox)
    if problem and mask:
        around, problem_of_mask = _around(mask)
        if not (problem_of_mask and bbox):
            points, problem = around, problem_of_mask
    if problem:
        return SourceObject(label, class_name, problem=problem, detail=shorten(bbox))
    area = entry.get("area")
    is_area = isinstance(area, int | float) and 0 <= area <= sys.float_info.max
    return SourceObject(
        label,
        class_name,
        points,
        is_crowd=is_crowd(entry),
        area=float(area) if is_area and area is not None else None,
    )


def is_crowd(entry: Entry) -> bool:
    """Return whether an annotation is a crowd region."""
    return normalize_id(entry.get("iscrowd") or 0) != 0


def _corners(bbox: Any) -> tuple[tuple[Point, ...], str]:
    """Return the corners of [x, y, width, height], and the kind of finding if unusable."""
    if bbox is None or (isinstance(bbox, list) and None in bbox):
        return (), "box_null"
    if not isinstance(bbox, list) or len(bbox) != 4:
        return (), "box_malformed"
    try:
        x, y, width, height = map(float, bbox)
    except OverflowError:
        return (), "box_not_finite"
    except (TypeError, ValueError):
        return (), "box_malformed"
    corners = (x, y), (x + width, y + height)
    return corners, rectangle_problem(*corners[0], *corners[1])


def _around(mask: Any) -> tuple[tuple[Point, ...], str]:
    """Return the corners of the box around a mask, and the kind of finding if unusable.

    Args:
        mask: polygons, or run lengths, compressed or not.
    """
    try:
        if isinstance(mask, dict):
            return _around_runs(mask)
        xs = [float(value) for polygon in mask for value in polygon[::2]]
        ys = [float(value) for polygon in mask for value in polygon[1::2]]
    except (TypeError, ValueError, LookupError, OverflowError):
        return (), "box_malformed"
    if not xs or not ys:
        return (), "box_null"
    corners = (min(xs), min(ys)), (max(xs), max(ys))
    return corners, rectangle_problem(*corners[0], *corners[1])


def _around_runs(mask: Mapping[str, Any]) -> tuple[tuple[Point, ...], str]:
    with extra("train"):
        from faster_coco_eval.core import mask as rle_masks

    height, width = (int(side) for side in mask["size"])
    counts = mask["counts"]
    if isinstance(counts, list):
        runs = rle_masks.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    else:
        runs = {"size": [height, width], "counts": str(counts).encode("ascii")}
    x, y, box_width, box_height = map(float, rle_masks.toBbox(runs))
    corners = (x, y), (x + box_width, y + box_height)
    return corners, rectangle_problem(*corners[0], *corners[1])
