"""Suspicions of the label radar, with cut-outs of the label and of the detection side by side."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.images.decoding import read_rgb
from ..data.images.pixel_range import PixelRange
from ..misc.drawing import box_shape, draw_shapes
from ..misc.errors import DatasetError
from ..misc.pages import jpeg_uri
from ..misc.text import printable

logger = logging.getLogger(__name__)

RADAR_JSON = "label_radar.json"
_MAX_SHOWN = 48
_SIDE_PX = 200  # of a cut-out
_GAP_PX = 4
_MARGIN = 0.6  # around the boxes, as a fraction of their size
_MIN_CUT_PX = 24
_LABEL_COLOR, _FOUND_COLOR, _GAP_COLOR = (255, 194, 51), (55, 214, 122), (96, 104, 116)
_LIKELY = 0.5


@dataclass(frozen=True)
class SuspiciousLabel:
    """A suspicion with its picture; the source is empty if the image is not readable."""

    source: str  # data URI: the label on the left, the detection on the right
    title: str
    where: str


@dataclass(frozen=True)
class LabelErrors:
    """The section of the report.

    Attributes:
        counts: (kind, number of likely errors, number of suspicions).
        shown: the most probable suspicions.
        num_suspicions: number of all suspicions.
    """

    counts: list[tuple[str, int, int]]
    shown: list[SuspiciousLabel]
    num_suspicions: int


def label_errors(
    folder: Path, img_folders: Mapping[str, Path], pixel_range: PixelRange | None
) -> LabelErrors | None:
    """Return the suspicions that the label radar wrote to the folder of a run.

    Args:
        folder: of the run.
        img_folders: of the images, by split.
        pixel_range: of images with more than 8 bits.

    Returns:
        None if the file of the radar is missing or damaged.
    """
    try:
        content = json.loads((folder / RADAR_JSON).read_text(encoding="utf-8"))
        kinds, suspicions = content["kinds"], content["suspicions"]
        counts = [
            (title, sum(each["probability"] >= _LIKELY for each in mine), len(mine))
            for kind, title in kinds.items()
            for mine in [[each for each in suspicions if each["kind"] == kind]]
        ]
        shown = [_shown(each, kinds, img_folders, pixel_range) for each in suspicions[:_MAX_SHOWN]]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("Could not read %s: %s", RADAR_JSON, error)
        return None
    return LabelErrors(counts, shown, len(suspicions))


def _shown(
    each: Mapping[str, Any],
    kinds: Mapping[str, str],
    img_folders: Mapping[str, Path],
    pixel_range: PixelRange | None,
) -> SuspiciousLabel:
    label, found = each["label"], each["detection"]
    names = [box["class"] if box else "nothing" for box in (label, found)]
    title = f"{100 * each['probability']:.0f} %: {kinds[each['kind']]}"
    where = f"labeled {names[0]}, detected {names[1]} ({each['split']}, {each['file_name']})"
    source = ""
    try:
        path = img_folders[each["split"]] / each["file_name"]
        image = Image.fromarray(read_rgb(path, None, pixel_range=pixel_range))
        source = jpeg_uri(_side_by_side(image, label, found))
    except DatasetError as error:
        logger.debug("image not shown: %s", error)
    return SuspiciousLabel(source, printable(title), printable(where))


def _side_by_side(
    image: Image.Image, label: Mapping[str, Any] | None, found: Mapping[str, Any] | None
) -> Image.Image:
    """Return two cut-outs of the same region, the left one with the label's box."""
    boxes = np.array([box["box_xyxy"] for box in (label, found) if box], dtype=np.float64)
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    half = max(float((high - low).max()) * (0.5 + _MARGIN), _MIN_CUT_PX / 2)
    corner = np.floor((low + high) / 2 - half).astype(int)
    side = max(int(np.ceil(2 * half)), 1)
    region = (*corner.tolist(), *(corner + side).tolist())
    pair = Image.new("RGB", (2 * _SIDE_PX + _GAP_PX, _SIDE_PX), _GAP_COLOR)
    for number, (box, color) in enumerate(((label, _LABEL_COLOR), (found, _FOUND_COLOR))):
        cut = image.crop(region).resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BILINEAR)
        if box:
            moved = np.array(box["box_xyxy"]) - np.tile(corner, 2)
            shape = box_shape(moved * (_SIDE_PX / side), color, label=box["class"])
            draw_shapes(cut, [shape])
        pair.paste(cut, (number * (_SIDE_PX + _GAP_PX), 0))
    return pair
