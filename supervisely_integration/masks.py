"""Masks of Supervisely annotations: how large they are, before anybody decompresses them."""

import base64
import io
import zlib
from collections.abc import Mapping
from typing import Any

from PIL import Image

from rtdetrv2_pytorch.src.data.images.decoding import DECODE_ERRORS, strict_pil

MASKS = ("bitmap", "alpha_mask")  # the shapes that are one

_BYTES_A_PIXEL = 4
_BYTES_BESIDE = 1 << 16  # of a PNG file: headers and what does not compress


def check_mask(figure: Mapping[str, Any], size_wh: tuple[int, int]) -> None:
    """Refuse a mask that is larger than its image: a few kilobytes may stand for gigabytes.

    Args:
        figure: object with "bitmap": {"data", "origin"}; data is a PNG file, compressed with zlib
            or not, as base64.
        size_wh: of the image.

    Raises:
        ValueError: if it is larger, or no picture.
    """
    width, height = size_wh
    try:
        data = base64.b64decode(figure["bitmap"]["data"])
        content = _decompressed(data, _BYTES_A_PIXEL * width * height + _BYTES_BESIDE)
        with strict_pil, Image.open(io.BytesIO(content)) as picture:
            size = picture.size
    except (*DECODE_ERRORS, Image.DecompressionBombError) as error:
        raise ValueError(f"mask that is no picture ({error!r})") from error
    if size[0] > width or size[1] > height:
        raise ValueError(f"mask of {size[0]}x{size[1]} pixels on an image of {width}x{height}")


def _decompressed(data: bytes, limit: int) -> bytes:
    unpacking = zlib.decompressobj()
    try:
        content = unpacking.decompress(data, limit)
    except zlib.error:
        return data  # the SDK reads such masks, too
    if unpacking.unconsumed_tail:
        raise ValueError(f"mask of more than {limit} bytes, which its image cannot have")
    return content
