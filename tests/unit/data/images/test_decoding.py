"""Image files of any mode become upright 8-bit RGB."""

import io
import os
import struct
import warnings
import zlib
from subprocess import CalledProcessError

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin

from rtdetrv2_pytorch.src.data.images.decoding import read_rgb
from rtdetrv2_pytorch.src.data.images.pixel_range import array_to_rgb, checked_range
from rtdetrv2_pytorch.src.misc.errors import ConfigError, DatasetError

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


RANGE = (100.0, 355.0)


@pytest.mark.parametrize(
    ("values", "dtype", "suffix", "pixel_range", "expected"),
    [
        ([257, 32896, 64893, 65535], "u2", "png", None, [1, 128, 253, 255]),
        ([257, 32896, 64893, 65535], "u2", "tiff", None, [1, 128, 253, 255]),
        ([-5, 0, 65535, 70000], "i4", "tiff", None, [0, 0, 255, 255]),
        ([0, 3_000_000_000], "u4", "tiff", (0.0, 4e9), [0, 191]),
        ([0, 0.25, 1, np.nan], "f4", "tiff", None, [0, 64, 255, 0]),
        ([-1, 100.4, 255, 0.5], "f4", "tiff", (0.0, 255.0), [0, 100, 255, 0]),
        ([np.nan, np.inf], "f4", "tiff", RANGE, [0, 255]),
        ([0, 100, 355, 65535], "u2", "png", RANGE, [0, 0, 255, 255]),
        ([0, 100, 200, 255], "u1", "png", RANGE, [0, 100, 200, 255]),
    ],
)
def test_pixel_range_scales_gray_images_to_8_bits(
    tmp_path, values, dtype, suffix, pixel_range, expected
):
    path = tmp_path / f"a.{suffix}"
    if dtype == "u4":
        path.write_bytes(tiff(np.array([values], dtype)))
    else:
        Image.fromarray(np.array([values], dtype=dtype)).save(path)
    pixels = read_rgb(path, pixel_range=pixel_range)
    assert pixels.tolist() == [[[v, v, v] for v in expected]]


@pytest.mark.parametrize(("dtype", "pixel_range"), [("u2", None), ("u2", RANGE), ("f4", RANGE)])
def test_scale_of_an_image_is_independent_of_its_other_pixels(tmp_path, dtype, pixel_range):
    found = []
    for highest in (255, 256):
        path = tmp_path / f"{highest}.tiff"
        Image.fromarray(np.array([[150, highest]], dtype)).save(path)
        found.append(read_rgb(path, pixel_range=pixel_range)[0, 0].tolist())
    assert found[0] == found[1]


def tiff(values):
    """Encode [H, W] or [H, W, C] as an uncompressed TIFF file, of any type and channels."""
    height, width, channels = (*values.shape, 1)[:3]
    bits, kind = values.dtype.itemsize * 8, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    photometric = 2 if channels > 2 else 1
    extra = channels - (3 if photometric == 2 else 1)
    tags = {
        256: [width], 257: [height], 258: [bits] * channels, 259: [1], 262: [photometric],
        273: [0], 277: [channels], 278: [height], 279: [values.nbytes],
        **({338: [0] * extra} if extra else {}), 339: [kind] * channels,
    }  # fmt: skip
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        ifd.tagtype[tag] = 4 if tag in (273, 279) else 3
        ifd[tag] = tuple(value) if len(value) > 1 else value[0]
    # PIL adds the end of the directory to the offset of the pixels.
    return b"II*\0" + struct.pack("<I", 8) + ifd.tobytes(8) + values.tobytes()


@pytest.mark.parametrize(
    ("channels", "dtype"), [(5, "u1"), (8, "u1"), (5, "u2"), (2, "u2"), (3, "f4")]
)
def test_unsupported_channels_are_named(tmp_path, channels, dtype):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(np.zeros((4, 5, channels), dtype)))
    with pytest.raises(DatasetError, match=rf"{channels} channels.* is not supported; save it"):
        read_rgb(path)


def test_arrays_are_converted_like_files():
    gray = np.array([[100, 355]], np.uint16)
    assert array_to_rgb(gray, RANGE).tolist() == [[[0] * 3, [255] * 3]]
    assert array_to_rgb(gray.astype(np.float32)[..., None], RANGE).tolist() == [
        [[0] * 3, [255] * 3]
    ]
    assert array_to_rgb(np.full((1, 1, 4), 65535, np.uint16), None).tolist() == [[[255] * 3]]
    colors = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert np.shares_memory(array_to_rgb(colors, RANGE), colors)
    np.testing.assert_array_equal(array_to_rgb(colors, RANGE), colors)
    with pytest.raises(ConfigError, match=r"\[2, 2, 5\]: not supported"):
        array_to_rgb(np.zeros((2, 2, 5), np.uint8), None)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 0.5, 1.0001, -1e-6]], np.float64), [0, 128, 255, 0]),
        (np.array([[0, 0.5, 1]], np.float16), [0, 128, 255]),
        (np.array([[0, 1, 255]], np.int64), [0, 1, 255]),
        (np.array([[False, True]]), [0, 255]),
        (np.array([[0, 257, 65535]], np.uint16), [0, 1, 255]),
    ],
)
def test_arrays_without_range_are_converted_by_type_and_values(values, expected):
    assert array_to_rgb(values, None)[0, :, 1].tolist() == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.array([[-1.5, 2]], np.float32),
            r"float32 \[1, 2\] with values from -1.5 to 2: give fl",
        ),
        (np.array([[np.nan, 0]]), "with values from nan to nan: give floats from 0 to 1 without"),
        (np.array([[0, 254.6]]), "values from 0 to 254.6: give .* uint8 from 0 to 255"),
        (np.array([[0, 4095]], np.int32), "integers with 16 bits as uint16"),
        (np.array([["a"]]), "give numbers, for example uint8"),
        (np.zeros((0, 5, 3), np.uint8), r"image of uint8 \[0, 5, 3\]: it has no pixels"),
        (np.zeros((3, 8, 9), np.uint8), r"\[3, 8, 9\]: not supported; .* transpose\(1, 2, 0\)"),
    ],
)
def test_unsupported_arrays_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        array_to_rgb(values, None)


@pytest.mark.parametrize("value", [[1], [5, 5], [0, float("inf")], "ab", [0, None]])
def test_invalid_range_is_rejected(value):
    with pytest.raises(ConfigError, match="pixel_range = .*: give .low, high."):
        checked_range(value)


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
