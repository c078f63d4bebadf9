"""Size checks of Supervisely masks, before they are decompressed."""

import base64
import io
import zlib
from collections.abc import Mapping
from typing import Any

from rtdetrv2_pytorch.src.data.images.opening import ImageFileError, open_image

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
    size = mask_size(figure, _BYTES_PER_PIXEL * width * height + _PNG_OVERHEAD)
    if size[0] > width or size[1] > height:
        raise ValueError(f"mask of {size[0]}x{size[1]} pixels on an image of {width}x{height}")


def mask_size(figure: Mapping[str, Any], max_bytes: int) -> tuple[int, int]:
    """Return (width, height) of a mask, from the header of its PNG.

    Raises:
        ValueError: if it is not an image, or its PNG is larger than `max_bytes`.
    """
    try:
        content = _decompressed(base64.b64decode(figure["bitmap"]["data"]), max_bytes)
        with open_image(io.BytesIO(content), name="mask") as image:
            return image.size
    except (ImageFileError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"mask is not an image ({error!r})") from error


def _decompressed(data: bytes, limit: int) -> bytes:
    decompressor = zlib.decompressobj()
    try:
        content = decompressor.decompress(data, limit)
    except zlib.error:
        return data  # uncompressed, which the SDK reads, too
    if decompressor.unconsumed_tail:
        raise ValueError(f"mask of more than {limit} bytes, too large for its image")
    return content
