"""Routes that receive images, as files or as a URL.

The SDK's routes (supervisely/nn/inference/inference.py) store uploads under the client's file name,
so that two clients can get each other's results, complete truncated images in gray, and never find
the file of a URL. Here no file is stored, and all requests together hold a limited number of
decoded pixels, and of bytes of files that wait for their prediction.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from fastapi import FastAPI, Form, HTTPException, Request, UploadFile
from supervisely.nn.inference.inference import Inference
from supervisely.nn.inference.inference_request import InferenceRequest

from rtdetrv2_pytorch.src.data.images.decoding import read_rgb
from rtdetrv2_pytorch.src.data.images.opening import (
    Budget,
    ImageFileError,
    max_pixels,
    open_image,
)
from rtdetrv2_pytorch.src.data.images.pixel_range import PixelRange
from rtdetrv2_pytorch.src.data.images.urls import download_image, shown_url
from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.misc.text import counted

MAX_UPLOAD_BYTES = 500 * 2**20  # of all files of a request
MAX_BATCH_SIZE = 64  # of images by id, which the SDK decodes together
_MAX_FORM_BYTES = MAX_UPLOAD_BYTES + 2**20  # with names and settings
_ROUTES = ("/inference_image", "/inference_image_url", "/inference_batch", "/inference_batch_async")
_LISTS = ("batch_ids", "image_ids", "images_ids", "imageIds")
_ID_KEYS = (*_LISTS, "image_id", "imageId")
_WAIT_S = 60.0  # for other requests, before the client has to repeat its own

_held_by_requests = Budget()
_waiting_uploads = Budget(lambda: MAX_UPLOAD_BYTES, "bytes")


@dataclass(frozen=True)
class InputImage:
    """A valid header of an image whose pixels are decoded later.

    Args:
        file: open for reading.
        name: in errors.
        pixels: of the image.
    """

    file: BinaryIO
    name: str
    pixels: int

    @classmethod
    def open(cls, file: BinaryIO, name: str) -> "InputImage":
        """Read the header.

        Raises:
            HTTPException: 413 for an image with too many pixels, 400 for any other reason.
        """
        with _as_http_error(), open_image(file, name=name) as image:
            return cls(file, name, image.width * image.height)

    def decode(self, pixel_range: PixelRange | None = None) -> np.ndarray:
        """Return [H, W, 3] uint8 RGB, scaled by the range of the model."""
        self.file.seek(0)
        with _as_http_error():
            return read_rgb(self.file, pixel_range=pixel_range, name=self.name)


def check_image_ids(state: Mapping[str, Any]) -> None:
    """Check the ids of images in the state of a request, and how many are decoded together.

    Raises:
        ConfigError: naming the key, if an id or the size of a batch is not usable.
    """
    size = state.get("batch_size")
    if size is not None and (type(size) is not int or not 1 <= size <= MAX_BATCH_SIZE):
        raise ConfigError(f"batch_size = {size!r}: give an integer from 1 to {MAX_BATCH_SIZE}")
    for key in _ID_KEYS:
        value = state.get(key)
        ids = value if isinstance(value, list) else [value]
        if key in state and not (all(type(id_) is int for id_ in ids) and (ids or key in _LISTS)):
            wanted = "a list of integers" if key in _LISTS else "an integer"
            raise ConfigError(f"{key} = {value!r}: give {wanted}")


def replace_image_routes(server: FastAPI, model: Inference) -> None:
    """Replace the SDK's routes for uploads and URLs."""
    routes = server.router.routes
    routes[:] = [route for route in routes if getattr(route, "path", None) not in _ROUTES]
    server.state.max_form_bytes = dict.fromkeys(_ROUTES, _MAX_FORM_BYTES)

    @server.post("/inference_image")
    def inference_image(
        files: list[UploadFile], settings: str = Form("{}"), state: str = Form("{}")
    ) -> Any:
        chosen = _state(model, state, settings)
        if len(files) != 1:
            raise HTTPException(400, f"expected one file, got {len(files)}")
        return _predict(model, _uploaded(files), chosen)[0]

    @server.post("/inference_image_url")
    def inference_image_url(request: Request) -> Any:
        state = request.state.state
        model.validate_inference_state(state)
        url = state.get("image_url")
        image = InputImage.open(download_image(url), shown_url(url))
        return _predict(model, [image], state)[0]

    @server.post("/inference_batch")
    def inference_batch(
        files: list[UploadFile], settings: str = Form("{}"), state: str = Form("{}")
    ) -> Any:
        chosen = _state(model, state, settings)
        return _predict(model, _uploaded(files), chosen)

    @server.post("/inference_batch_async")
    def inference_batch_async(
        files: list[UploadFile], settings: str = Form("{}"), state: str = Form("{}")
    ) -> Any:
        chosen = _state(model, state, settings)
        opened = _uploaded(files)
        with ExitStack() as stack:
            size = sum(each.size or 0 for each in files)
            _reserve(stack, _waiting_uploads, size, timeout_s=0)
            # The server closes the files of a request when it has sent the response.
            images = [
                InputImage(io.BytesIO(each.file.read()), each.name, each.pixels) for each in opened
            ]
            manager = model.inference_requests_manager
            request, future = manager.schedule_task(_predict_later, model, images, chosen)
            held = stack.pop_all()
        future.add_done_callback(lambda _: held.close())
        return {"message": "Scheduled inference task.", "inference_request_uuid": request.uuid}


def _predict(model: Inference, images: Sequence[InputImage], state: dict[str, Any]) -> list[Any]:
    results: list[Any] = []
    for group in _groups(images):
        with _decoded(group, model.pixel_range) as pixels:
            results += model.inference_requests_manager.run(model._inference_images, pixels, state)
    return results


def _predict_later(
    model: Inference,
    images: Sequence[InputImage],
    state: dict[str, Any],
    inference_request: InferenceRequest,
) -> None:
    for group in _groups(images):
        if not inference_request.is_stopped():
            with _decoded(group, model.pixel_range) as pixels:
                model._inference_images(pixels, state, inference_request=inference_request)


def _state(model: Inference, state: str, settings: str) -> dict[str, Any]:
    """Read the state of a form, from either of its fields."""
    text = settings if state in ("", "{}") else state
    model.validate_inference_state(text)
    chosen: dict[str, Any] = json.loads(text)
    return chosen


def _uploaded(files: Sequence[UploadFile]) -> list[InputImage]:
    size = sum(file.size or 0 for file in files)
    if size > MAX_UPLOAD_BYTES:
        raise HTTPException(
            413,
            f"{counted(len(files), 'file')} of {size:,} bytes in all; send at most "
            f"{MAX_UPLOAD_BYTES:,} in a "
            "request",
        )
    images = [InputImage.open(file.file, file.filename or "the file") for file in files]
    for image in images:
        image.file.seek(0)
    return images


def _groups(images: Sequence[InputImage]) -> Iterator[list[InputImage]]:
    """Yield consecutive images that may be decoded at once."""
    group: list[InputImage] = []
    for image in images:
        if group and sum(each.pixels for each in group) + image.pixels > max_pixels():
            yield group
            group = []
        group.append(image)
    if group:
        yield group


@contextmanager
def _decoded(
    images: Sequence[InputImage], pixel_range: PixelRange | None = None
) -> Iterator[list[np.ndarray]]:
    """Yield decoded images; wait first, if other requests hold too many pixels.

    Raises:
        HTTPException: 429 after a long wait.
    """
    with ExitStack() as stack:
        pixels = sum(image.pixels for image in images)
        _reserve(stack, _held_by_requests, pixels, timeout_s=_WAIT_S)
        yield [image.decode(pixel_range) for image in images]


def _reserve(stack: ExitStack, budget: Budget, amount: int, *, timeout_s: float) -> None:
    """Hold a part of a budget until the stack is closed.

    Raises:
        HTTPException: 429 after the wait.
    """
    try:
        stack.enter_context(budget.reserve(amount, timeout_s))
    except TimeoutError as error:
        raise HTTPException(
            429, f"the app is busy: {error}; repeat the request later", {"Retry-After": "10"}
        ) from error


@contextmanager
def _as_http_error() -> Iterator[None]:
    try:
        yield
    except ImageFileError as error:
        raise HTTPException(413 if error.kind == "bomb" else 400, str(error)) from error
