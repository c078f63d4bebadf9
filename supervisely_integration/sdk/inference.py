"""Every work-around of the serving app for the Supervisely SDK (6.74.51), with its pitfall."""

import queue
import sys
import threading
import uuid
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import supervisely as sly
import torch
from supervisely.nn.inference import uploader as sdk_uploader
from supervisely.nn.inference.cache import InferenceImageCache
from supervisely.nn.inference.inference import Inference
from supervisely.nn.inference.inference_request import InferenceRequest, InferenceRequestsManager
from supervisely.nn.utils import RuntimeType

from rtdetrv2_pytorch.src.misc.devices import checked_device
from rtdetrv2_pytorch.src.misc.errors import ConfigError

# Names of the SDK and its clients -> kinds of the engine.
KINDS = {
    "PyTorch": "pytorch",
    "ONNXRuntime": "onnxruntime",
    "TensorRT": "tensorrt",
    "OpenVINO": "openvino",
}
_SHORT = {"torch": "PyTorch", "onnx": "ONNXRuntime", "trt": "TensorRT"}
_STRIPES = 64
_LONGEST_WAIT_S = 0.02


def add_openvino() -> None:
    """The list of runtimes is a class whose attributes the page reads: one more is enough."""
    RuntimeType.OPENVINO = "OpenVINO"


def runtime_type(name: str | None) -> str:
    """The SDK compares names of runtimes as they are written, and takes any other for PyTorch.

    Raises:
        ConfigError: if there is no such runtime.
    """
    wanted = (name or RuntimeType.PYTORCH).lower()
    known = {each.lower(): each for each in KINDS} | _SHORT
    if wanted not in known:
        raise ConfigError(f"runtime = {name!r}: there are {', '.join(KINDS)}")
    return known[wanted]


def complete_deploy_params(deploy_params: dict[str, Any]) -> dict[str, Any]:
    """Devices and runtimes that are not there are found out only after the download, or never.

    A missing runtime is a KeyError, and an unknown one PyTorch.

    Raises:
        ConfigError: if there is no such device or runtime.
    """
    deploy_params["runtime"] = runtime_type(deploy_params.get("runtime"))
    device = deploy_params.get("device") or ("cuda:0" if torch.cuda.is_available() else "cpu")
    deploy_params["device"] = str(checked_device(device))
    return deploy_params


def is_command_line(words: Sequence[str] | None = None) -> bool:
    """Whether the process was started with `deploy` or `predict`."""
    return bool({"deploy", "predict"} & set((sys.argv if words is None else words)[1:2]))


def parse_command_line(parse: Any) -> tuple[Any, bool]:
    """The command line starts on cuda:0 whether there is a GPU or not, and knows no OpenVINO."""
    if not is_command_line():
        return None, False
    before, words, runtime = sys.argv, list(sys.argv), None
    for place, word in enumerate(words):
        if word == "--runtime" and place + 1 < len(words):
            runtime = words[place + 1]
            del words[place : place + 2]
            break
    if not torch.cuda.is_available() and not any(w.startswith("--device") for w in words):
        words += ["--device", "cpu"]
    try:
        sys.argv = words
        arguments, is_deploy = parse()
    finally:
        sys.argv = before
    arguments.runtime = runtime_type(runtime or arguments.runtime)
    return arguments, is_deploy


class Requests(InferenceRequestsManager):  # type: ignore[misc]
    """Two requests of one microsecond share an id; a synchronous one waits for a reader at 500.

    Ids are made of the time. A request pauses at 500 results until somebody takes some, but the
    one who would take them waits for its end: an hour later it fails.
    """

    def create(self, inference_request_uuid: str | None = None) -> InferenceRequest:
        """A request with an id of its own."""
        return super().create(inference_request_uuid or uuid.uuid4().hex)

    def run(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Run to the end, however many results there are."""
        request = kwargs.setdefault("inference_request", self.create())
        request.PENDING_RESULTS_MAX_SIZE = float("inf")
        return super().run(func, *args, **kwargs)


class ImageCache(InferenceImageCache):  # type: ignore[misc]
    """An image that cannot be downloaded blocks its id; files are read half-written.

    The SDK's cache notes an id as being loaded and does not take the note back when loading
    fails: the next request for it waits ten minutes. It also shows a file before it is written,
    and changes its table from several threads at once.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]

    def download_image(self, api: sly.Api, image_id: int, related: bool = False) -> np.ndarray:
        """The image, downloaded once by whoever needs it first."""
        if related:
            return np.asarray(super().download_image(api, image_id, related))
        name = self._image_name(image_id)
        with self._stripes[hash(name) % _STRIPES]:
            image = self._read(name)
            if image is None:
                image = np.asarray(api.image.download_np(image_id))
                self._add_to_cache(name, image)
        return image

    def download_images(
        self, api: sly.Api, dataset_id: int, image_ids: list[int], **options: Any
    ) -> list[np.ndarray] | None:
        """The images, in order."""
        images = []
        for image_id in image_ids:
            image = self.download_image(api, image_id)
            if options.get("return_images", True):
                images.append(image)
            if options.get("progress_cb") is not None:
                options["progress_cb"]()
        return images if options.get("return_images", True) else None

    def _read(self, name: str) -> np.ndarray | None:
        with self._lock:  # files are written under it, too
            if name not in self._cache:
                return None
            path = str(self._cache.get_image_path(name))
        try:
            return np.asarray(sly.image.read(path))
        except (OSError, ValueError):  # it was thrown out in between
            return None


class PromptQueue(queue.Queue):  # type: ignore[type-arg]
    """Threads notice the end of a request only when their wait for one more item is over.

    That is after a second, so that a request by image id takes one however fast the network is.
    They take an early end of a wait for what it is, and ask again.
    """

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The next item, waited for only shortly where a time is given."""
        return super().get(block, None if timeout is None else min(timeout, _LONGEST_WAIT_S))


def replace_shared_parts(model: Inference) -> None:
    """See `Requests`, `ImageCache` and `PromptQueue`; the cache's folder is this process's own.

    The SDK's cache lies in one folder for all processes of the machine, under ids that two
    instances may both have.
    """
    old = model.cache
    folder = f"{model.model_dir}/../image_cache/{uuid.uuid4().hex}"
    model.cache = ImageCache(old._maxsize, old._ttl, base_folder=folder, log_progress=True)
    model.inference_requests_manager = Requests(executor=model._executor)
    sdk_uploader.queue = SimpleNamespace(Queue=PromptQueue, Empty=queue.Empty, Full=queue.Full)
