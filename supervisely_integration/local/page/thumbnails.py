"""Small JPEG pictures of images with their boxes, made when they are looked at."""

import io
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from rtdetrv2_pytorch.src.data.images.decoding import DECODE_ERRORS, strict_pil
from rtdetrv2_pytorch.src.misc.drawing import Shape, draw_shapes

from ..emulator.store import Store
from .outlines import Outline, outlines

SIDE = 360  # longest, in pixels: enough for sharp cards on dense screens
_KEPT = 2000  # pictures of about 15 kB each
_QUALITY = 82
_COLOUR = re.compile("#[0-9a-fA-F]{6}")
_COLOURLESS = "#888888"

Drawing = tuple[tuple[str, Outline], ...]


def thumbnail(store: Store, image_id: int) -> bytes | None:
    """JPEG of an image with what is drawn on it; None if its file cannot be read.

    Raises:
        NotFoundError: if there is no such image.
    """
    path, info = store.images.contents(image_id)
    # The time of the last change is part of the key, so that new boxes make a new picture.
    return _make(store, path, image_id, str(info["updatedAt"]), (info["width"], info["height"]))


def drawing_of(store: Store, image_id: int) -> list[dict[str, Any]]:
    """Objects of an image: class, colour and outlines of each."""
    info = store.images.info(image_id)
    (record,) = store.annotations.get([image_id])
    colours = colours_of(store, info["projectId"])
    return [
        {
            "title": figure["classTitle"],
            "colour": colours.get(figure["classTitle"], _COLOURLESS),
            "shape": figure["geometryType"],
            "tags": [_tag_text(tag) for tag in figure["tags"]],
            "outlines": outlines(figure),
        }
        for figure in record["annotation"]["objects"]
    ]


def colours_of(store: Store, project_id: int) -> dict[str, str]:
    """Colour by class name, in a form that is nothing but a colour."""
    classes = store.projects.meta(project_id)["classes"]
    return {each["title"]: _colour(each.get("color")) for each in classes}


def _colour(value: Any) -> str:
    return value if isinstance(value, str) and _COLOUR.fullmatch(value) else _COLOURLESS


def _tag_text(tag: Mapping[str, Any]) -> str:
    value = tag.get("value")
    return str(tag.get("name")) if value is None else f"{tag.get('name')}: {value}"


@lru_cache(maxsize=_KEPT)
def _make(
    store: Store, path: Path, image_id: int, updated_at: str, size_wh: tuple[int, int]
) -> bytes | None:
    try:
        with strict_pil, Image.open(path) as file:
            file.draft("RGB", (SIDE * 2, SIDE * 2))
            upright = ImageOps.exif_transpose(file)
            upright.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
            picture = upright.convert("RGB")
    except (*DECODE_ERRORS, Image.DecompressionBombError):
        return None
    shapes = [
        Shape(outline["points"], each["colour"], outline["kind"])
        for each in drawing_of(store, image_id)
        for outline in each["outlines"]
    ]
    draw_shapes(picture, shapes, size_wh)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
