"""Size checks of masks before they are decompressed."""

import base64
import io
import zlib

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_pytorch.src.data.readers.masks import check_mask, mask_box
from tests.sdk import import_sdk

import_sdk()

import supervisely as sly  # noqa: E402 (imported in a thread above)


def figure(content: bytes):
    return {"bitmap": {"origin": [0, 0], "data": base64.b64encode(content).decode()}}


def png(width, height):
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, "PNG")
    return file.getvalue()


def test_masks_of_the_sdk_pass():
    origin = sly.PointLocation(0, 0)
    check_mask(sly.Bitmap(np.ones((40, 60), bool), origin).to_json(), (60, 40))
    check_mask(sly.AlphaMask(np.full((40, 60), 9, np.uint8), origin).to_json(), (60, 40))
    check_mask(figure(png(60, 40)), (60, 40))  # not compressed once more


def test_incompressible_mask_passes():
    """The least compressible mask, which is as large as a mask can be."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 200, 4), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    check_mask(figure(zlib.compress(file.getvalue())), (200, 300))


@pytest.mark.parametrize("size_wh", [(61, 40), (60, 41), (20_000, 20_000)])
def test_mask_larger_than_its_image_is_rejected(size_wh):
    with pytest.raises(
        ValueError, match=r"mask of \d+x\d+ pixels on an image of 60x40|more than 75136 bytes"
    ):
        check_mask(figure(zlib.compress(png(*size_wh))), (60, 40))


def test_decompression_bomb_is_rejected():
    """300 MB of zeros in 300 kB."""
    bomb = figure(zlib.compress(bytes(300 << 20), 9))
    assert len(bomb["bitmap"]["data"]) < 500_000
    with pytest.raises(ValueError, match="mask of more than 75136 bytes"):
        check_mask(bomb, (60, 40))


@pytest.mark.parametrize(
    "broken",
    [{}, {"bitmap": None}, {"bitmap": {"data": 7}}, figure(b""), figure(b"no picture"),
     figure(zlib.compress(b"neither"))],
)  # fmt: skip
def test_other_data_is_rejected(broken):
    with pytest.raises(ValueError, match="mask is not an image"):
        check_mask(broken, (60, 40))


@pytest.mark.parametrize("kind", [sly.Bitmap, sly.AlphaMask])
def test_box_is_that_of_the_sdk(kind):
    pixels = np.zeros((20, 30), bool if kind is sly.Bitmap else np.uint8)
    pixels[4:9, 2:13] = 1
    mask = kind(pixels, sly.PointLocation(7, 5))
    around = mask.to_bbox()
    expected = (around.left, around.top), (around.right + 1, around.bottom + 1)
    assert mask_box(mask.to_json(), (60, 40)) == expected == ((7, 11), (18, 16))


def test_margins_do_not_belong_to_the_box():
    file = io.BytesIO()
    image = Image.new("RGBA", (10, 8), (255, 255, 255, 0))
    image.paste((0, 0, 0, 255), (3, 2, 5, 6))
    image.save(file, "PNG")
    moved = figure(zlib.compress(file.getvalue()))
    moved["bitmap"]["origin"] = [20, 10]
    assert mask_box(moved, (60, 40)) == ((23, 12), (25, 16))
    with pytest.raises(ValueError, match="the mask is empty"):
        mask_box(figure(png(6, 4)), (60, 40))
