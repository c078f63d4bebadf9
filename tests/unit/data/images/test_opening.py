"""One place opens images: formats, limits, memory and any failure of a decoder."""

import io
import pickle
import subprocess
import threading
import time
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from rtdetrv2_pytorch.src.data.findings import UnusableError
from rtdetrv2_pytorch.src.data.images.decoding import read_rgb
from rtdetrv2_pytorch.src.data.images.opening import (
    DEFAULT_MAX_PIXELS,
    MAX_PIXELS_SETTING,
    Budget,
    ImageFileError,
    is_hidden,
    is_image,
    max_pixels,
    open_image,
)
from rtdetrv2_pytorch.src.data.images.orientation import read_oriented
from rtdetrv2_pytorch.src.misc.errors import ConfigError, DatasetError


def save(path, kind="PNG", size=(20, 10)):
    Image.new("RGB", size, (200, 100, 50)).save(path, kind)
    return path


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"])
def test_allowed_formats_are_decoded_whatever_the_name(tmp_path, kind):
    path = save(tmp_path / "photo.jpg", kind)
    assert abs(read_rgb(path).astype(int) - [200, 100, 50]).max() < 10


@pytest.mark.parametrize("kind", ["EPS", "PPM", "TGA", "ICO", "PCX", "JPEG2000", "PDF"])
def test_other_formats_are_rejected_by_every_reader(tmp_path, kind):
    path = save(tmp_path / "photo.jpg", kind)
    message = r"photo\.jpg: cannot be read as an image \(the content is none of JPEG, .*save it as"
    with pytest.raises(DatasetError, match=message):
        read_rgb(path)
    with pytest.raises(UnusableError, match="the content is none of JPEG"):
        read_oriented(path)


def test_postscript_never_starts_a_program(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "check_call", lambda *a, **k: started.append(a))
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    with pytest.raises(DatasetError):
        read_rgb(save(tmp_path / "photo.jpg", "EPS"))
    assert started == []


def test_limit_names_the_file_its_size_and_the_setting(tmp_path, monkeypatch):
    path = save(tmp_path / "large.png", size=(40, 30))
    size = path.stat().st_size
    monkeypatch.setenv(MAX_PIXELS_SETTING, "1200")
    assert read_rgb(path).shape == (30, 40, 3)
    monkeypatch.setenv(MAX_PIXELS_SETTING, "1199")
    message = (
        f"large.png: 40x30 = 1,200 pixels in a file of {size:,} bytes; the limit is 1,199. Shrink "
        f"the image, cut it into tiles, or set {MAX_PIXELS_SETTING}"
    )
    with pytest.raises(ImageFileError) as of_path:
        read_rgb(path)
    assert str(of_path.value).endswith(message)
    assert of_path.value.kind == "bomb"
    with pytest.raises(ImageFileError) as of_file:
        read_rgb(io.BytesIO(path.read_bytes()), name="large.png")
    assert str(of_file.value) == message
    assert str(pickle.loads(pickle.dumps(of_file.value))) == message


@pytest.mark.parametrize("value", ["0", "-5", "1e8", "many"])
def test_invalid_limit_is_named(monkeypatch, value):
    monkeypatch.setenv(MAX_PIXELS_SETTING, value)
    with pytest.raises(ConfigError, match=f"{MAX_PIXELS_SETTING} = '{value}': give a number"):
        max_pixels()
    monkeypatch.setenv(MAX_PIXELS_SETTING, " ")
    assert max_pixels() == DEFAULT_MAX_PIXELS


def test_settings_of_pil_are_strict_inside_and_restored_afterwards(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)
    path = save(tmp_path / "a.png")
    with open_image(path):
        with open_image(path):  # a second thread that leaves first
            pass
        assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS) == (True, 7)


def test_errors_of_the_caller_keep_their_type(tmp_path):
    with pytest.raises(UnusableError), open_image(save(tmp_path / "a.png")):
        raise UnusableError("size_disagrees")


def test_pixels_beyond_the_budget_wait(monkeypatch):
    monkeypatch.setenv(MAX_PIXELS_SETTING, "100")
    budget, held = Budget(), []

    def hold(pixels):
        with budget.reserve(pixels):
            held.append(pixels)

    with budget.reserve(60):
        with budget.reserve(40):
            pass
        with pytest.raises(TimeoutError, match="no memory for 41 pixels"), budget.reserve(41, 0.01):
            pass
        waiting = threading.Thread(target=hold, args=(41,))
        waiting.start()
        time.sleep(0.02)
        assert held == []
    waiting.join(10)
    assert held == [41]
    with budget.reserve(1000):  # alone, an image may be as large as `open_image` allows
        pass


@pytest.mark.parametrize(
    ("name", "is_one", "hidden"),
    [
        ("a.JPG", True, False),
        (".hidden.jpg", True, False),
        ("._a.jpg", False, True),  # attributes of a.jpg, by macOS
        (".DS_Store", False, True),
        (".jpg", False, True),
        ("a.txt", False, False),
        ("a.eps", False, False),
        ("a.gif", True, False),
        ("a.heic", True, False),
    ],
)
def test_names_of_images(name, is_one, hidden):
    assert is_image(Path("folder", name)) is is_one
    assert is_hidden(Path("folder", name)) is hidden


def test_pixels_are_freed_before_others_are_decoded(tmp_path):
    source = io.BytesIO(save(tmp_path / "a.png").read_bytes())
    with open_image(source, decode=True) as file:
        assert file.im.size == (20, 10)
    assert file.im.size == (1, 1)
    assert not source.closed
