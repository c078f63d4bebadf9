"""Thumbnails of images with their objects, created on request."""

import io
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from rtdetrv2_pytorch.src.data.images.opening import ImageFileError, open_image
from rtdetrv2_pytorch.src.misc.drawing import Shape, draw_shapes

from ..emulator.store import Store
from .outlines import outlines

SIDE = 360  # longest side in pixels, sharp on high-density screens
_CACHE_SIZE = 2000  # thumbnails of about 15 kB each
_QUALITY = 82
_COLOR = re.compile("#[0-9a-fA-F]{6}")
_DEFAULT_COLOR = "#888888"


def thumbnail(store: Store, image_id: int) -> bytes | None:
    """Return a JPEG of an image with its objects; None if the image file is unreadable.

    Raises:
        NotFoundError: if the image does not exist.
    """
    path, info = store.images.contents(image_id)
    # The time of the last change is part of the cache key, so that new annotations show up.
    return _make(store, path, image_id, str(info["updatedAt"]), (info["width"], info["height"]))


def drawing_of(store: Store, image_id: int) -> list[dict[str, Any]]:
    """Return class, color and outlines of the objects of an image."""
    info = store.images.info(image_id)
    (record,) = store.annotations.get([image_id])
    colors = colors_of(store, info["projectId"])
    return [
        {
            "title": figure["classTitle"],
            "color": colors.get(figure["classTitle"], _DEFAULT_COLOR),
            "shape": figure["geometryType"],
            "tags": [_tag_text(tag) for tag in figure["tags"]],
            "outlines": outlines(figure),
        }
        for figure in record["annotation"]["objects"]
    ]


def colors_of(store: Store, project_id: int) -> dict[str, str]:
    """Return the color of each class by name; invalid colors are replaced."""
    classes = store.projects.meta(project_id)["classes"]
    return {each["title"]: _color(each.get("color")) for each in classes}


def _color(value: Any) -> str:
    return value if isinstance(value, str) and _COLOR.fullmatch(value) else _DEFAULT_COLOR


def _tag_text(tag: Mapping[str, Any]) -> str:
    value = tag.get("value")
    return str(tag.get("name")) if value is None else f"{tag.get('name')}: {value}"


@lru_cache(maxsize=_CACHE_SIZE)
def _make(
    store: Store, path: Path, image_id: int, updated_at: str, size_wh: tuple[int, int]
) -> bytes | None:
    try:
        with open_image(path, decode=True, draft_wh=(SIDE * 2, SIDE * 2)) as file:
            file.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
            picture = ImageOps.exif_transpose(file).convert("RGB")
    except ImageFileError:
        return None
    shapes = [
        Shape(outline["points"], each["color"], outline["kind"])
        for each in drawing_of(store, image_id)
        for outline in each["outlines"]
    ]
    draw_shapes(picture, shapes, size_wh)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
