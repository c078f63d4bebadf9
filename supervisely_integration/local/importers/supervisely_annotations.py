"""Convert meta and annotations of a Supervisely project to the platform's storage format."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from rtdetrv2_pytorch.src.data.findings import Finding, Findings, UnusableError
from rtdetrv2_pytorch.src.data.images.orientation import OrientedImage
from rtdetrv2_pytorch.src.data.readers.source import (
    ANY_SHAPE,
    PROGRAM_CLASSES,
    SourceImage,
    shorten,
)

from .geometries import to_stored

_INSTANCE_KEYS = frozenset(
    {"id", "classId", "tagId", "entityId", "labelerLogin", "createdAt", "updatedAt"}
)


@dataclass(frozen=True)
class Names:
    """Classes and tags of a project."""

    shapes: Mapping[str, str]  # of the classes
    tags: frozenset[str]

    @classmethod
    def of_meta(cls, meta: Mapping[str, Any]) -> "Names":
        """Read the names of a project meta."""
        shapes = {entry["title"]: entry["shape"] for entry in meta["classes"]}
        return cls(shapes, frozenset(entry["name"] for entry in meta["tags"]))


def stored_meta(meta: Mapping[str, Any], classes: Container[str]) -> dict[str, Any]:
    """Return the meta of a project with some of its classes, without ids of its old instance."""
    kept = [_without_ids(entry) for entry in meta["classes"] if entry["title"] in classes]
    return {**meta, "classes": kept, "tags": [_without_ids(entry) for entry in meta["tags"]]}


def stored_annotation(
    image: SourceImage,
    names: Names,
    oriented: OrientedImage,
    findings: Findings,
    *,
    is_turned: bool,
) -> dict[str, Any]:
    """Return description, tags and objects of an annotation; `findings` collects the unusable.

    `is_turned`: whether the annotation refers to the image before its EXIF rotation.
    """
    content = image.annotation or {}
    objects = []
    for number, figure in enumerate(content["objects"], start=1):
        label = f"object {number}"
        try:
            checked = _object(figure, names, oriented, is_turned=is_turned)
        except UnusableError as error:
            detail = f"{label}: {error}" if error.detail else label
            findings.add(Finding(error.kind, image.name, detail, split=image.split, lost_objects=1))
            continue
        tags = _tags(checked.get("tags"), image, f"{label}: ", names, findings)
        objects.append({**_without_ids(checked), "tags": tags})
    return {
        "description": str(content.get("description") or ""),
        "tags": _tags(content.get("tags"), image, "", names, findings),
        "objects": objects,
    }


def _object(
    figure: Any, names: Names, oriented: OrientedImage, *, is_turned: bool
) -> Mapping[str, Any]:
    if not isinstance(figure, dict):
        raise UnusableError("annotation_malformed", shorten(figure))
    title = figure.get("classTitle")
    if not isinstance(title, str) or title not in names.shapes:
        kind = "object_left_out" if str(title) in PROGRAM_CLASSES else "unknown_class"
        raise UnusableError(kind, shorten(title))
    shape = figure.get("geometryType") or figure.get("shape") or names.shapes[title]
    if not isinstance(shape, str):
        raise UnusableError("annotation_malformed", "object without a shape")
    if names.shapes[title] not in (ANY_SHAPE, shape):
        detail = f"{shape} of a class whose shape is {names.shapes[title]}"
        raise UnusableError("annotation_malformed", detail)
    return to_stored({**figure, "geometryType": shape}, oriented, is_turned=is_turned)


def _without_ids(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in _INSTANCE_KEYS}


def _tags(
    tags: Any, image: SourceImage, prefix: str, names: Names, findings: Findings
) -> list[dict[str, Any]]:
    """Return the tags that the meta has, each once."""
    found: dict[str, dict[str, Any]] = {}
    for tag in tags if isinstance(tags, list) else []:
        name = tag.get("name") if isinstance(tag, dict) else tag
        if not isinstance(name, str) or name not in names.tags:
            findings.add(
                Finding("unknown_tag", image.name, prefix + shorten(name), split=image.split)
            )
        elif name not in found:
            found[name] = _without_ids(tag) if isinstance(tag, dict) else {"name": name}
    return list(found.values())
