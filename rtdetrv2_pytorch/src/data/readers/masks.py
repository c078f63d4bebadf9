"""Masks of Supervisely: size checks before they are decompressed, and their boxes."""

import base64
import io
import zlib
from collections.abc import Mapping
from typing import Any

from ..images.opening import ImageFileError, open_image
from .source import Point

MASKS = ("bitmap", "alpha_mask")  # geometry types

_BYTES_PER_PIXEL = 4
_PNG_OVERHEAD = 1 << 16  # bytes: headers, and data that does not compress


def check_mask(figure: Mapping[str, Any], size_wh: tuple[int, int]) -> None:
    """Reject a mask that is larger than its image; a few kilobytes may decompress to gigabytes.

    Args:
        figure: object with "bitmap": {"data", "origin"}; data is a PNG file, compressed with zlib
            or not, as base64.
        size_wh: of the image.

    Raises:
        ValueError: if it is larger, or not an image.
    """
    width, height = size_wh
    size = mask_size(figure, _max_bytes(size_wh))
    if size[0] > width or size[1] > height:
        raise ValueError(f"mask of {size[0]}x{size[1]} pixels on an image of {width}x{height}")


def mask_size(figure: Mapping[str, Any], max_bytes: int) -> tuple[int, int]:
    """Return (width, height) of a mask, from the header of its PNG.

    Raises:
        ValueError: if it is not an image, or its PNG is larger than `max_bytes`.
    """
    try:
        with open_image(_content(figure, max_bytes), name="mask") as image:
            return image.size
    except (ImageFileError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"mask is not an image ({error!r})") from error


def mask_box(figure: Mapping[str, Any], size_wh: tuple[int, int]) -> tuple[Point, Point]:
    """Return the corners of the box around a mask, as edges in pixels of its image.

    Args:
        figure: as for `check_mask`.
        size_wh: of the image.

    Raises:
        ValueError: if the mask is empty, larger than its image, or not an image.
        LookupError, TypeError: if its origin is damaged.
    """
    check_mask(figure, size_wh)
    left, top = (float(value) for value in figure["bitmap"]["origin"])
    with open_image(_content(figure, _max_bytes(size_wh)), name="mask", decode=True) as image:
        bands = image.getbands()
        box = (image.getchannel("A") if "A" in bands else image).getbbox()
    if box is None:
        raise ValueError("the mask is empty")
    return (left + box[0], top + box[1]), (left + box[2], top + box[3])


def _content(figure: Mapping[str, Any], max_bytes: int) -> io.BytesIO:
    return io.BytesIO(_decompressed(base64.b64decode(figure["bitmap"]["data"]), max_bytes))


def _max_bytes(size_wh: tuple[int, int]) -> int:
    return _BYTES_PER_PIXEL * size_wh[0] * size_wh[1] + _PNG_OVERHEAD


def _decompressed(data: bytes, limit: int) -> bytes:
    decompressor = zlib.decompressobj()
    try:
        content = decompressor.decompress(data, limit)
    except zlib.error:
        return data  # uncompressed, which the SDK reads, too
    if decompressor.unconsumed_tail:
        raise ValueError(f"mask of more than {limit} bytes, too large for its image")
    return content
