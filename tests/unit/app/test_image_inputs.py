"""Images of requests: limits of pixels and files, names in errors, ids."""

import asyncio
import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import supervisely as sly
from fastapi import FastAPI, HTTPException, UploadFile
from PIL import Image
from starlette.testclient import TestClient

from rtdetrv2_pytorch.src.data.images.opening import MAX_PIXELS_SETTING, Budget
from rtdetrv2_pytorch.src.misc.errors import ConfigError, DatasetError
from supervisely_integration.access.guard import guard_server
from supervisely_integration.access.policy import AccessPolicy
from supervisely_integration.sdk.images import read_images_like_the_trainer
from supervisely_integration.sdk.inference import RequestsManager
from supervisely_integration.serve import image_inputs


def encoded(size=(20, 10), kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, (9, 90, 30)).save(buffer, kind)
    return buffer.getvalue()


def uploaded(*contents):
    files = [
        UploadFile(io.BytesIO(content), filename=f"{number}.jpg", size=len(content))
        for number, content in enumerate(contents)
    ]
    return image_inputs._uploaded(files)


def test_uploads_are_decoded():
    images = uploaded(encoded(), encoded((7, 5), "JPEG"))
    with image_inputs._decoded(images) as pixels:
        assert [each.shape for each in pixels] == [(10, 20, 3), (5, 7, 3)]
        assert (pixels[0] == [9, 90, 30]).all()


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (encoded((50, 50)), 413, "0.jpg: 50x50 = 2,500 pixels"),
        (encoded(kind="EPS"), 400, "0.jpg: cannot be read as an image (the content is none of"),
        (b"", 400, "0.jpg: cannot be read as an image"),
    ],
)
def test_unusable_uploads_are_named(monkeypatch, content, status, message):
    monkeypatch.setenv(MAX_PIXELS_SETTING, "2000")
    with pytest.raises(HTTPException) as caught:
        uploaded(content)
    assert caught.value.status_code == status
    assert caught.value.detail.startswith(message)


def test_truncated_upload_is_named():
    (image,) = uploaded(encoded((300, 300))[:-50])
    with pytest.raises(HTTPException, match="0.jpg: cannot be read as an image"):
        image.decode()


def test_size_of_all_files_is_limited(monkeypatch):
    monkeypatch.setattr(image_inputs, "MAX_UPLOAD_BYTES", 100)
    with pytest.raises(HTTPException, match="413: 2 files of .* bytes in all; send at most 100"):
        uploaded(encoded(), encoded())


def test_images_of_a_request_are_decoded_in_groups(monkeypatch):
    monkeypatch.setenv(MAX_PIXELS_SETTING, "500")
    images = uploaded(*[encoded()] * 3, encoded((25, 20)), encoded())
    groups = list(image_inputs._groups(images))
    assert [[image.name for image in group] for group in groups] == [
        ["0.jpg", "1.jpg"],
        ["2.jpg"],
        ["3.jpg"],
        ["4.jpg"],
    ]


def test_requests_hold_a_limited_number_of_pixels(monkeypatch):
    """Eight requests at once of 200 pixels each; 500 are allowed."""
    monkeypatch.setenv(MAX_PIXELS_SETTING, "500")
    monkeypatch.setattr(image_inputs, "_held_by_requests", Budget())
    held, most = [], []

    def request(_):
        with image_inputs._decoded(uploaded(encoded())) as pixels:
            held.append(1)
            most.append(len(held))
            held.pop()
            return pixels[0].size

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(request, range(8))) == [600] * 8
    assert max(most) <= 2


def test_long_wait_asks_the_client_to_repeat(monkeypatch):
    monkeypatch.setenv(MAX_PIXELS_SETTING, "300")
    monkeypatch.setattr(image_inputs, "_held_by_requests", Budget())
    monkeypatch.setattr(image_inputs, "_WAIT_S", 0.01)
    with (
        image_inputs._decoded(uploaded(encoded())),
        pytest.raises(HTTPException) as caught,
        image_inputs._decoded(uploaded(encoded())),
    ):
        pass
    assert caught.value.status_code == 429
    assert caught.value.headers == {"Retry-After": "10"}
    assert "the app is busy: no memory for 200 pixels" in caught.value.detail


@pytest.fixture
def server():
    """The routes of uploads, of a model whose predictions wait for an event."""
    manager = RequestsManager(executor=ThreadPoolExecutor(4))
    free = threading.Event()

    def predict(pixels, state, **_):
        free.wait(10)
        return [[] for _ in pixels]

    model = SimpleNamespace(
        inference_requests_manager=manager,
        validate_inference_state=lambda state: None,
        _inference_images=predict,
        pixel_range=None,
    )
    server = FastAPI()
    image_inputs.replace_image_routes(server, model)
    guard_server(server, AccessPolicy.from_environment({}, lambda name: False))
    yield SimpleNamespace(client=TestClient(server, base_url="http://localhost"), free=free)
    free.set()


def test_bytes_of_waiting_uploads_are_limited(server, monkeypatch):
    monkeypatch.setattr(image_inputs, "MAX_UPLOAD_BYTES", 3 * len(encoded()) - 1)

    def send():
        return server.client.post("/inference_batch_async", files=[("files", encoded())])

    assert [send().status_code for _ in range(3)] == [200, 200, 429]
    assert "no memory for" in send().json()["detail"]
    server.free.set()
    for _ in range(500):  # until the first two are done
        if image_inputs._waiting_uploads._used == 0:
            break
        time.sleep(0.01)
    assert send().status_code == 200


def test_large_upload_is_refused_before_it_is_read(server):
    async def chunks():
        raise AssertionError("the body was read")
        yield b""

    async def send():  # Starlette's client counts as the app itself
        transport = httpx.ASGITransport(server.client.app)
        headers = {"content-type": "multipart/form-data; boundary=x", "content-length": "600000000"}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post("/inference_image", content=chunks(), headers=headers)

    answer = asyncio.run(send())
    assert answer.status_code == 413
    assert answer.json()["detail"] == "the request has more than 501 MiB; send less"


@pytest.mark.parametrize("size", [0, 65, -1, True, 1.5, "4"])
def test_invalid_batch_sizes_are_named(size):
    with pytest.raises(ConfigError, match=f"^batch_size = {size!r}: give an integer from 1 to 64"):
        image_inputs.check_image_ids({"batch_size": size})


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"batch_size": 1},
        {"batch_size": 64},
        {"image_id": 5},
        {"batch_ids": [1, 2]},
        {"batch_ids": []},
        {"image_id": [5]},
        {"imageIds": 5},
    ],
)
def test_valid_ids(state):
    image_inputs.check_image_ids(state)


@pytest.mark.parametrize("value", [None, "5", 1.5, True, {}, [None], [[1]], ["x"]])
@pytest.mark.parametrize("key", ["image_id", "batch_ids"])
def test_invalid_ids_are_named(key, value):
    with pytest.raises(ConfigError, match=f"^{key} = .*: give an? "):
        image_inputs.check_image_ids({key: value})


def test_sdk_reads_images_like_the_trainer(monkeypatch, tmp_path):
    for name in ("read", "read_bytes"):
        monkeypatch.setattr(sly.image, name, getattr(sly.image, name))
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(kind="PPM"))
    assert sly.image.read_bytes(path.read_bytes()).shape == (10, 20, 3)  # else it is not needed
    read_images_like_the_trainer(lambda: (0.0, 510.0))
    with pytest.raises(DatasetError, match=r"photo\.jpg: cannot be read as an image"):
        sly.image.read(str(path))
    with pytest.raises(DatasetError, match="the image: cannot be read as an image"):
        sly.image.read_bytes(path.read_bytes())
    np.testing.assert_array_equal(sly.image.read_bytes(encoded())[0, 0], [9, 90, 30])
    Image.fromarray(np.full((2, 2), 200, np.uint16)).save(tmp_path / "deep.png")
    assert sly.image.read(str(tmp_path / "deep.png")).tolist() == [[[100] * 3] * 2] * 2


def test_pixel_range_of_the_model_scales_uploads(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.full((2, 2), 200, np.uint16)).save(buffer, "PNG")
    with image_inputs._decoded(uploaded(buffer.getvalue()), (0.0, 510.0)) as (pixels,):
        assert pixels.tolist() == [[[100] * 3] * 2] * 2
