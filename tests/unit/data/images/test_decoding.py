"""Image files of any mode become upright 8-bit RGB."""

import io
import os
import struct
import warnings
import zlib
from subprocess import CalledProcessError

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from rtdetrv2_pytorch.src.data.images.decoding import read_rgb
from rtdetrv2_pytorch.src.misc.errors import DatasetError

STORED = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)  # 5 wide, 3 high

# Operations on the stored image, by the value of the EXIF tag.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def oriented(path, orientation, pixels=STORED):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(tmp_path, orientation):
    path = oriented(tmp_path / "a.png", orientation)
    pixels = read_rgb(path)
    np.testing.assert_array_equal(pixels, UPRIGHT[orientation](STORED))
    np.testing.assert_array_equal(pixels, np.array(ImageOps.exif_transpose(Image.open(path))))


def test_exif_orientation_of_jpeg_is_applied(tmp_path):
    path = oriented(tmp_path / "a.jpg", 6)
    np.testing.assert_array_equal(
        read_rgb(path), np.array(Image.open(path).transpose(Image.Transpose.ROTATE_270))
    )


@pytest.mark.parametrize("orientation", [0, 9])
def test_invalid_orientation_is_ignored(tmp_path, orientation):
    np.testing.assert_array_equal(read_rgb(oriented(tmp_path / "a.png", orientation)), STORED)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_orientation_is_ignored_if_declared_size_matches_stored_pixels(tmp_path, orientation):
    path = oriented(tmp_path / "a.png", orientation)
    np.testing.assert_array_equal(read_rgb(path, (5, 3)), STORED)
    np.testing.assert_array_equal(read_rgb(path, (3, 5)), UPRIGHT[orientation](STORED))


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_orientation_is_applied_if_declared_size_matches_both(tmp_path, orientation):
    path = oriented(tmp_path / "a.png", orientation)
    np.testing.assert_array_equal(read_rgb(path, (5, 3)), UPRIGHT[orientation](STORED))
    square = STORED[:, :3]
    path = oriented(tmp_path / "square.png", 6, square)
    np.testing.assert_array_equal(read_rgb(path, (3, 3)), UPRIGHT[6](square))


@pytest.mark.parametrize("tag", [0x0100, 0x011A, 0x0154])  # width, resolution, minimum
def test_other_exif_tags_are_ignored(tmp_path, tag):
    # A number stored as text: PIL reads it but cannot write it.
    entries = struct.pack(">HHI4s", tag, 2, 4, b"abc\0") + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2) + entries + struct.pack(">I", 0)
    path = tmp_path / "a.jpg"
    Image.fromarray(STORED).save(path, exif=exif)
    np.testing.assert_array_equal(
        read_rgb(path), np.array(Image.open(path).transpose(Image.Transpose.ROTATE_270))
    )


def test_result_is_writable(tmp_path):
    Image.fromarray(STORED).save(tmp_path / "a.png")
    pixels = read_rgb(tmp_path / "a.png")
    pixels[:] = 0
    assert pixels.dtype == np.uint8


def palette(transparency):
    image = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def of(mode, *pixels):
    image = Image.new(mode, (len(pixels), 1))
    image.putdata(pixels)
    return image


COLORS = [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
GRAYS = [[0, 0, 0], [7, 7, 7], [255, 255, 255]]


@pytest.mark.parametrize(
    ("image", "suffix", "expected"),
    [
        pytest.param(of("L", 0, 7, 255), "png", GRAYS, id="gray"),
        pytest.param(of("LA", (0, 255), (7, 0), (255, 9)), "png", GRAYS, id="gray and alpha"),
        pytest.param(of("1", 0, 255, 0), "png", [[0] * 3, [255] * 3, [0] * 3], id="one bit"),
        pytest.param(palette(None), "png", COLORS, id="palette"),
        pytest.param(palette(1), "png", COLORS, id="palette, one color transparent"),
        pytest.param(palette(bytes([0, 128, 255])), "png", COLORS, id="palette and alphas"),
        pytest.param(palette(1), "gif", COLORS, id="GIF, one color transparent"),
        pytest.param(
            of("RGBA", (10, 20, 30, 0), (40, 50, 60, 128), (70, 80, 90, 255)), "png", COLORS,
            id="alpha is left out, not blended",
        ),
        pytest.param(
            of("CMYK", (255, 0, 0, 0), (0, 0, 0, 255), (0, 255, 255, 0)), "tiff",
            [[0, 255, 255], [0, 0, 0], [255, 0, 0]], id="CMYK",
        ),
    ],
)  # fmt: skip
def test_mode_is_converted_to_rgb(tmp_path, image, suffix, expected):
    path = tmp_path / f"a.{suffix}"
    image.save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_rgb(path).tolist() == [expected]


@pytest.mark.parametrize(
    ("values", "dtype", "suffix", "expected"),
    [
        pytest.param([257, 32896, 64893, 65535], "u2", "png", [1, 128, 253, 255], id="16 bit"),
        pytest.param(
            [257, 32896, 64893, 65535], "u2", "tiff", [1, 128, 253, 255], id="16-bit TIFF"
        ),
        pytest.param([0, 100, 255, 3], "u2", "png", [0, 100, 255, 3], id="8 bits stored as 16"),
        pytest.param([-5, 0, 65535, 70000], "i4", "tiff", [0, 0, 255, 255], id="32 bit"),
        pytest.param([0, 0.25, 1, np.nan], "f4", "tiff", [0, 64, 255, 0], id="floats 0..1"),
        pytest.param([-1, 100.4, 255, 0.5], "f4", "tiff", [0, 100, 255, 0], id="floats 0..255"),
        pytest.param([0, 257, 65535, 514], "f4", "tiff", [0, 1, 255, 2], id="floats of 16 bits"),
        pytest.param([np.nan] * 4, "f4", "tiff", [0] * 4, id="nothing known"),
        pytest.param([0] * 4, "u2", "png", [0] * 4, id="black"),
    ],
)
def test_more_than_eight_bits_are_scaled(tmp_path, values, dtype, suffix, expected):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.array([values], dtype=dtype)).save(path)
    assert read_rgb(path).tolist() == [[[v, v, v] for v in expected]]


def jpeg():
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>404 not found</html>", id="text"),
        pytest.param(jpeg()[:-500], id="cut short"),
        pytest.param(jpeg()[:40], id="only a header"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(50), id="PNG of zeros"),
    ],
)
def test_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"broken\.jpg: cannot be read as an image"):
        read_rgb(path)


def test_missing_file_and_folder_are_named(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    for name in ("missing.jpg", "folder.jpg"):
        with pytest.raises(DatasetError, match=rf"{name}: cannot be read as an image"):
            read_rgb(tmp_path / name)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP"])
def test_any_damage_raises_dataset_error(tmp_path, kind):
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(buffer, kind)
    path = tmp_path / "a.bin"
    outcomes = {True: 0, False: 0}
    for _ in range(100):
        content = np.frombuffer(buffer.getvalue(), np.uint8).copy()
        content[rng.integers(0, len(content), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(content[: rng.integers(1, 2 * len(content))].tobytes())
        try:
            pixels = read_rgb(path)
        except DatasetError:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3
    assert outcomes[False] > 5


def test_checks_hold_after_other_libraries_disabled_them(tmp_path, monkeypatch):
    # The Supervisely SDK does this on import.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    path = tmp_path / "torn.jpg"
    Image.fromarray(np.tile(STORED, (20, 20, 1))).save(path)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DatasetError, match=r"torn\.jpg: cannot be read"):
        read_rgb(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True  # restored
    assert Image.MAX_IMAGE_PIXELS is None


def test_decompression_bomb_is_rejected_before_decoding(tmp_path):
    def chunk(body):
        return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))

    header = b"IHDR" + struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(header) + chunk(b"IDAT"))
    with pytest.raises(DatasetError, match=r"bomb\.png: 30000x30000 = 900,000,000 pixels"):
        read_rgb(path)


@pytest.mark.parametrize("declared_wh", [(3, 5), (5, 4), (10, 6)])
def test_wrong_declared_size_is_rejected(tmp_path, declared_wh):
    Image.fromarray(STORED).save(tmp_path / "a.png")
    width, height = declared_wh
    message = (
        rf"a\.png: the image is 5x3, but {width}x{height} in the annotations; the image is skipped"
    )
    with pytest.raises(DatasetError, match=message):
        read_rgb(tmp_path / "a.png", declared_wh)


def test_decoder_specific_error_raises_dataset_error(tmp_path):
    path = tmp_path / "x.avif"
    Image.fromarray(STORED).save(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"iloc")
    content[at + 4 : at + 20] = bytes(16)
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"x\.avif: cannot be read as an image"):
        read_rgb(path)


def test_pipe_is_rejected_without_blocking(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(
        DatasetError, match=r"pipe\.jpg: cannot be read as an image \(not a regular file"
    ):
        read_rgb(tmp_path / "pipe.jpg")


@pytest.mark.parametrize(
    "error",
    [struct.error("x"), KeyError("x"), EOFError("x"), CalledProcessError(1, ["gs"]), Exception()],
)
def test_any_decoder_exception_raises_dataset_error(tmp_path, monkeypatch, error):
    path = tmp_path / "a.png"
    Image.fromarray(STORED).save(path)

    def load(self):
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(DatasetError, match=r"a\.png: cannot be read as an image"):
        read_rgb(path)
