"""Requests and cached images of the SDK's `Inference`, safe under concurrent clients."""

import fcntl
import os
import queue
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import copy_context
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import supervisely as sly
from supervisely.nn.inference import uploader as sdk_uploader
from supervisely.nn.inference.cache import InferenceImageCache
from supervisely.nn.inference.inference import Inference
from supervisely.nn.inference.inference_request import InferenceRequest, InferenceRequestsManager

from rtdetrv2_pytorch.src.data.images.decoding import read_rgb
from rtdetrv2_pytorch.src.data.images.pixel_range import PixelRange
from rtdetrv2_pytorch.src.misc.errors import DatasetError

from .images import read_images_like_the_trainer

_NUM_LOCKS = 64
_MAX_WAIT_S = 0.02
_until_exit = ExitStack()


class RequestsManager(InferenceRequestsManager):  # type: ignore[misc]
    """Gives every request a unique id, and lets synchronous requests return any number of results.

    `InferenceRequest` (supervisely/nn/inference/inference_request.py) makes its id of the time, so
    two requests of the same microsecond share one. It also pauses at 500 results until a client
    takes some, but the client of a synchronous request waits for its end, which then times out.
    """

    def create(self, inference_request_uuid: str | None = None) -> InferenceRequest:
        """Create a request with a random id."""
        return super().create(inference_request_uuid or uuid.uuid4().hex)

    def run(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a request to its end."""
        request = kwargs.setdefault("inference_request", self.create())
        request.PENDING_RESULTS_MAX_SIZE = float("inf")
        context = copy_context()  # of the route, which adds notes and times to its response

        @wraps(func)
        def in_context(*given: Any, **options: Any) -> Any:
            return context.run(func, *given, **options)

        return super().run(in_context, *args, **kwargs)


class ImageCache(InferenceImageCache):  # type: ignore[misc]
    """Downloads every image once, under a lock.

    `InferenceImageCache` (supervisely/nn/inference/cache.py) marks an id as loading and keeps the
    mark after a failed download: the next request for the image waits ten minutes. It also returns
    files that are still being written, and modifies its table from several threads.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._locks = [threading.Lock() for _ in range(_NUM_LOCKS)]

    def download_image(self, api: sly.Api, image_id: int, related: bool = False) -> np.ndarray:
        """Return an image, downloaded or from the cache."""
        if related:
            return np.asarray(super().download_image(api, image_id, related))
        name = self._image_name(image_id)
        with self._locks[hash(name) % _NUM_LOCKS]:
            image = self._read(name)
            if image is None:
                image = np.asarray(api.image.download_np(image_id))
                self._add_to_cache(name, image)
        return image

    def download_images(
        self, api: sly.Api, dataset_id: int, image_ids: list[int], **options: Any
    ) -> list[np.ndarray] | None:
        """Return images in order."""
        images = []
        for image_id in image_ids:
            image = self.download_image(api, image_id)
            if options.get("return_images", True):
                images.append(image)
            if options.get("progress_cb") is not None:
                options["progress_cb"]()
        return images if options.get("return_images", True) else None

    def _read(self, name: str) -> np.ndarray | None:
        with self._lock:  # held while files are written
            if name not in self._cache:
                return None
            path = str(self._cache.get_image_path(name))
        try:
            return read_rgb(Path(path))
        except (OSError, ValueError, DatasetError):  # evicted in between
            return None


class ShortWaitQueue(queue.Queue):  # type: ignore[type-arg]
    """Waits at most 20 ms for an item.

    The threads of `Uploader` (supervisely/nn/inference/uploader.py) notice the end of a request
    only when a wait of one second is over, so every request by image id takes a second. They treat
    an early `queue.Empty` like any other and wait again.
    """

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Return the next item."""
        return super().get(block, None if timeout is None else min(timeout, _MAX_WAIT_S))


def own_folder(parent: Path) -> Path:
    """Create a folder for this process; remove those of processes that have ended, also if killed.

    Args:
        parent: of the folders of all processes; each process locks its own.
    """
    own = parent / uuid.uuid4().hex
    parent.mkdir(parents=True, exist_ok=True)
    # A file system without locks raises: then nothing is removed.
    with suppress(OSError), _locked(parent):  # no process is about to lock a new folder
        for folder in parent.iterdir():
            with suppress(OSError), _locked(folder, fcntl.LOCK_NB):  # raises if its process runs
                shutil.rmtree(folder)
        own.mkdir()
        _until_exit.enter_context(_locked(own))
    return own


@contextmanager
def _locked(folder: Path, option: int = 0) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | option)
        yield
    finally:
        os.close(handle)


def replace_shared_parts(model: Inference, pixel_range: Callable[[], PixelRange | None]) -> None:
    """Use the classes of this module in a model, whose images have this range.

    The cache gets its own folder: the SDK's is shared by all processes of a machine, and names
    images by ids that two instances may both have.
    """
    read_images_like_the_trainer(pixel_range)
    old, folder = model.cache, own_folder(Path(model.model_dir).parent / "image_cache")
    model.cache = ImageCache(old._maxsize, old._ttl, base_folder=str(folder), log_progress=True)
    model.inference_requests_manager = RequestsManager(executor=model._executor)
    sdk_uploader.queue = SimpleNamespace(Queue=ShortWaitQueue, Empty=queue.Empty, Full=queue.Full)
