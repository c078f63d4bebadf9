"""Images of PIL, files, arrays and tensors become the same pixels."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from rtdetrv2_pytorch.src.data.images.conversion import to_rgb
from rtdetrv2_pytorch.src.data.images.decoding import EXIF_ORIENTATION
from rtdetrv2_pytorch.src.data.images.opening import ImageFileError
from rtdetrv2_pytorch.src.misc.errors import ConfigError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)


def encoded(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def test_files_bytes_and_pil_images():
    content = encoded(Image.fromarray(PIXELS))
    for image in (content, bytearray(content), io.BytesIO(content), Image.fromarray(PIXELS)):
        np.testing.assert_array_equal(to_rgb(image), PIXELS)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16", "F"])
def test_modes_of_pil_become_rgb(mode):
    gray = Image.new("L", (6, 4), 255)
    image = Image.new("I;16", (6, 4), 65535) if mode == "I;16" else gray.convert(mode)
    if mode == "F":
        image = Image.new("F", (6, 4), 1.0)
    assert to_rgb(image).tolist() == np.full((4, 6, 3), 255).tolist()


def test_orientation_of_pil_images_is_applied():
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6  # stored rotated to the left
    with Image.open(io.BytesIO(encoded(Image.fromarray(PIXELS), exif=exif))) as image:
        np.testing.assert_array_equal(to_rgb(image), np.rot90(PIXELS, -1))


def test_tensors_have_the_channels_first_or_last():
    tensor = torch.from_numpy(PIXELS)
    np.testing.assert_array_equal(to_rgb(tensor), PIXELS)
    np.testing.assert_array_equal(to_rgb(tensor.permute(2, 0, 1)), PIXELS)
    np.testing.assert_array_equal(to_rgb((tensor / 255).requires_grad_()), PIXELS)
    np.testing.assert_array_equal(to_rgb(tensor[..., 0])[..., 2], PIXELS[..., 0])
    square = tensor[:3, :3]  # ambiguous: torch has the channels first
    np.testing.assert_array_equal(to_rgb(square), PIXELS[:3, :3].transpose(1, 2, 0))


def test_damaged_images_are_named(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)  # the SDK sets it
    content = encoded(Image.fromarray(np.tile(PIXELS, (20, 20, 1))))
    with pytest.raises(ImageFileError, match="^image: cannot be read as an image"):
        to_rgb(content[:50])
    with (
        Image.open(io.BytesIO(content[: len(content) // 2])) as image,
        pytest.raises(ImageFileError, match="^image: cannot be read as an image"),
    ):
        to_rgb(image)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "type NoneType: give a path, bytes, a PIL image, an array or a tensor"),
        (3.5, "type float: give a path"),
        (io.StringIO("text"), r"a text file; open it in binary mode \('rb'\)"),
    ],
)
def test_other_objects_are_rejected(image, message):
    with pytest.raises(ConfigError, match=message):
        to_rgb(image)
