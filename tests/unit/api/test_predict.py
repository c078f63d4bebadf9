"""`RTDETR.predict` with every kind of source."""

import http.server
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rtdetrv2 import RTDETR, Detections
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError, DatasetError

SCORE = 0.05


def same(one: Detections, other: Detections) -> bool:
    np.testing.assert_allclose(one.boxes, other.boxes, atol=0.05)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
    return one.names == other.names and one.size_hw == other.size_hw


@pytest.fixture(scope="module")
def expected(model, pixels) -> Detections:
    found = model.predict(pixels, score=SCORE)
    assert len(found) > 0
    return found


def test_one_image_gives_one_result(model, image, pixels, expected):
    tensor = torch.from_numpy(pixels)
    sources = [image, str(image), image.read_bytes(), Image.fromarray(pixels), tensor]
    sources += [tensor.permute(2, 0, 1), tensor / 255]
    for source in sources:
        assert same(model.predict(source, score=SCORE), expected)
    with image.open("rb") as file:
        assert same(model(file, score=SCORE), expected)
    assert model.predict(image).path == image
    gray = model.predict(pixels[..., 0])
    assert gray.image().shape == (60, 80, 3)


def test_several_images_give_a_list(model, image, pixels, expected):
    found = model.predict([image, pixels, [Image.fromarray(pixels)]], score=SCORE)
    assert len(found) == 3
    assert all(same(one, expected) for one in found)
    batch = torch.from_numpy(np.stack([pixels, pixels[::-1]])).permute(0, 3, 1, 2)
    first, second = model.predict(batch, score=SCORE)
    assert same(first, expected)
    assert same(second, model.predict(pixels[::-1], score=SCORE))
    assert model.predict([]) == []


def test_iterators_are_read_lazily(model, pixels):
    read = []

    def images():
        for i in range(3):
            read.append(i)
            yield pixels

    found = model.predict(images(), stream=True)
    assert read == []
    next(found)
    assert read == [0]
    assert len(list(found)) == 2


def test_folder_with_subfolders_and_a_damaged_image(model, tmp_path, pixels, expected, caplog):
    for name in ("b/2.png", "a.PNG", "b/.hidden/3.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, "PNG")
    (tmp_path / "b" / "1.jpg").write_bytes(b"no image")
    (tmp_path / "notes.txt").touch()
    found = model.predict(tmp_path, score=SCORE)
    assert [one.path for one in found] == [tmp_path / "a.PNG", tmp_path / "b" / "2.png"]
    assert all(same(one, expected) for one in found)
    assert [record.message.split(":")[0] for record in caplog.records] == [
        str(tmp_path / "b" / "1.jpg")
    ]
    with pytest.raises(DatasetError, match=r"1\.jpg: cannot be read as an image"):
        model.predict([tmp_path / "a.PNG", tmp_path / "b" / "1.jpg"])


def test_image_of_a_url(model, image, expected, monkeypatch):
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=image.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert same(model.predict(f"{url}/{image.name}", score=SCORE), expected)
        with pytest.raises(DatasetError, match=r"none\.png: cannot be downloaded \(status 404\)"):
            model.predict(f"{url}/none.png")
        server.shutdown()


def test_frames_of_a_video(model, tmp_path):
    import av

    path = tmp_path / "video.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height = 96, 64
        for value in (0, 120, 240):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), value, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames = model.predict(path, score=0)
    assert iter(frames) is frames
    found = list(frames)
    assert [round(float(one.image().mean()), -1) for one in found] == [0, 120, 240]
    assert [one.size_hw for one in found] == [(64, 96)] * 3
    assert found[2].name == f"{path}, frame 2"
    path.write_bytes(b"no video")
    with pytest.raises(DatasetError, match=r"video\.mp4: cannot be read as a video"):
        model.predict(path)


def test_options(model, pixels):
    everything = model.predict(pixels, score=0)
    for name in model.class_names:
        found = model.predict(pixels, score=0, classes=name)
        assert found.names == [name] * everything.names.count(name)
    assert len(model.predict(pixels, score=0, nms_iou=np.float32(0.01))) < len(everything)
    lowest = everything.scores[3]
    assert len(model.predict(pixels, score=torch.tensor(lowest))) == 4
    auto = model.predict(pixels, score="auto")
    lowest = {"cat": 0.5, "dog": 0.3, "owl": 0.4}
    assert len(auto) == sum(one.score >= lowest[one.name] for one in everything)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": 2}, '^score = 2: must be a number from 0 to 1, or "auto"'),
        ({"nms_iou": 0}, "^nms_iou = 0: must be above 0"),
        ({"classes": ["bird"]}, "^classes: the model does not have 'bird'; its classes are cat"),
    ],
)
def test_invalid_options_are_rejected_before_the_source_is_read(model, options, message):
    with pytest.raises(ConfigError, match=message):
        model.predict("none.jpg", stream=True, **options)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.jpg", "none.jpg: no such file or folder; give an image, a video or a folder"),
        (Path(__file__).parent / "none", "no such file or folder"),
        (5, "image of type int: give a path"),
        ({"a": 1}, "image of type dict: give a path"),
        (np.zeros((3, 60, 80), np.uint8), r"transpose\(1, 2, 0\)"),
    ],
)
def test_other_sources_are_rejected(model, source, message):
    with pytest.raises((ConfigError, DatasetError), match=message):
        model.predict(source)


def test_empty_folder_is_rejected(model, tmp_path):
    with pytest.raises(DatasetError, match="no images in this folder"):
        model.predict(tmp_path)


def test_random_weights_do_not_predict(pixels):
    model = RTDETR("S", weights=None)
    assert repr(model) == "RTDETR('S', random weights)"
    with pytest.raises(CheckpointError, match="^S: the model has random weights; train it first"):
        model.predict(pixels)
