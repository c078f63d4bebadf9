"""Measure the serving app under load: requests per second of clients that wait for responses.

The real app, with the real SDK, against an instance of this machine. Apps, instance and clients
share its cores, as they would not in production.
"""

import contextlib
import itertools
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image

from benchmarks.runtimes import random_checkpoint
from rtdetrv2.analysis.timing import OtherProcesses, spread, summary
from rtdetrv2_pytorch.src.deploy.detector import load_detector
from rtdetrv2_pytorch.src.deploy.onnx import write_onnx
from rtdetrv2_pytorch.src.deploy.predictor import Predictor
from rtdetrv2_pytorch.src.deploy.runtimes import PyTorchRuntime
from supervisely_integration.local.instance import LocalInstance
from supervisely_integration.local.launcher.app_process import AppProcess
from supervisely_integration.local.launcher.serve_session import deploy
from supervisely_integration.paths import SERVE
from tests.ranks import free_port

MODEL = "rtdetrv2_r18vd_120e_coco"
BASELINE = "PyTorch"
PICTURE_WH = (1280, 960)
_OBJECTS = 15  # per response, approximately
# Number of concurrent clients -> requests per round.
_REQUESTS = {1: 4, 4: 8, 16: 16}
_SPEED_TEST = {"batch_size": 1, "num_iterations": 4, "num_warmup": 1}


def serving(device: torch.device, size: int = 640, rounds: int = 3) -> dict[str, Any]:
    """Measure one app per runtime in turn, with uploaded images and image ids.

    Args:
        device: device of the apps.
        size: input size in pixels.
        rounds: number of rounds; each runs every app with every number of clients.
    """
    others = OtherProcesses()
    with TemporaryDirectory() as name, others:
        folder = Path(name)
        jpeg = _jpeg()
        files, threshold = _model_files(folder, size, jpeg, device)
        settings = {"confidence_threshold": threshold}
        with LocalInstance(folder / "instance") as instance:
            project, images = _fill(instance, jpeg, _ids_needed(rounds))
            with _apps(instance, folder, files, device) as apps:
                asked = {
                    runtime: _AppClient(app, instance, jpeg, images, settings)
                    for runtime, app in apps.items()
                }
                load, times = _take_turns(asked, project, rounds)
    result = _summarize(load, times)
    result["what"] = (
        f"serving, {MODEL}, {size} px, JPEG of {PICTURE_WH[0]}x{PICTURE_WH[1]} pixels and "
        f"{len(jpeg) // 1000} kB: seconds from request to answer"
    )
    result["facts"]["other programs"] = {"cores": others.cores()}
    return result


def _model_files(
    folder: Path, size: int, jpeg: bytes, device: torch.device
) -> tuple[dict[str, Path], float]:
    """Return files by runtime, and a threshold that keeps about `_OBJECTS` detections."""
    checkpoint = random_checkpoint(folder / "model.pth", MODEL, size)
    detector, card = load_detector(checkpoint)
    exported = folder / "model.onnx"
    write_onnx(detector, card, exported)
    predictor = Predictor(PyTorchRuntime(detector, card, torch.device("cpu")))
    picture = np.asarray(Image.open(BytesIO(jpeg)))
    found, _ = predictor.predict([picture], confidence_threshold=0)
    scores = found[0]["scores"]
    files = {BASELINE: checkpoint, "ONNXRuntime": exported}
    if device.type == "cpu":
        files["OpenVINO"] = exported
    return files, float(scores[min(_OBJECTS, len(scores)) - 1])


def _jpeg() -> bytes:
    """Return soft shapes with noise, which compress about as well as a photo."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
    soft = np.asarray(Image.fromarray(coarse).resize(PICTURE_WH, Image.Resampling.BICUBIC))
    grain = rng.normal(0, 6, soft.shape)
    buffer = BytesIO()
    Image.fromarray((soft + grain).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _ids_needed(rounds: int) -> int:
    return 1 + rounds * sum(_REQUESTS.values())  # one for the warm-up


def _fill(instance: LocalInstance, jpeg: bytes, count: int) -> tuple[dict[str, int], list[int]]:
    """Create a project with images, and a dataset of two for the speed test."""
    store = instance.store
    project = store.projects.create("load")
    dataset, of_test = (
        store.datasets.create(project, "load"),
        store.datasets.create(project, "test"),
    )
    with store.transaction():
        images = [store.images.create(dataset, f"{i}.jpg", jpeg) for i in range(count)]
        for i in range(2):
            store.images.create(of_test, f"test_{i}.jpg", jpeg)
    return {"projectId": project, "dataset_id": of_test}, images


@contextlib.contextmanager
def _apps(
    instance: LocalInstance, folder: Path, files: dict[str, Path], device: torch.device
) -> Iterator[dict[str, AppProcess]]:
    """Start one app per runtime and deploy its model."""
    with contextlib.ExitStack() as stack:
        apps = {}
        for runtime in files:
            app: dict[str, Any] = {"id": 2, "name": "Serve RT-DETRv2", "version": "local"}
            process = AppProcess(
                server_address=instance.address,
                token=instance.token,
                data_dir=folder / runtime,
                task_id=instance.store.tasks.create(app=app),
                port=free_port(),
                environment={"APP_NAME": app["name"]},
                app_dir=SERVE,
                variable="model",
            )
            apps[runtime] = stack.enter_context(process)
        for runtime, process in apps.items():
            process.wait_until_ready()
            deploy(process, instance, str(files[runtime]), runtime, str(device))
        yield apps


class _AppClient:
    """Requests to one app; each image is requested once, so that it is not cached."""

    def __init__(
        self,
        app: AppProcess,
        instance: LocalInstance,
        jpeg: bytes,
        images: list[int],
        settings: dict[str, Any],
    ) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._client = httpx.Client(base_url=app.address, timeout=300, limits=limits)
        self._instance = instance
        self._jpeg = jpeg
        self._images = iter(images)
        self._next = threading.Lock()
        self._settings = settings
        self.ways: dict[str, Callable[[], None]] = {"upload": self._upload, "id": self._by_id}

    def _upload(self) -> None:
        files = {"files": ("picture.jpg", self._jpeg)}
        data = {"state": json.dumps({"settings": self._settings})}
        self._check(self._client.post("/inference_image", files=files, data=data))

    def _by_id(self) -> None:
        with self._next:
            image = next(self._images)
        self._check(self.post("inference_image_id", image_id=image, settings=self._settings))

    def post(self, route: str, **state: Any) -> httpx.Response:
        """Send a request as the platform does."""
        body = {
            "state": state,
            "context": {"outside_request": True},
            "api_token": self._instance.token,
            "server_address": self._instance.address,
        }
        return self._client.post(f"/{route}", json=body)

    def _check(self, response: httpx.Response) -> None:
        """Assert that the response is not an error, which would be faster."""
        response.raise_for_status()
        if not response.json()["annotation"]["objects"]:
            raise RuntimeError("the app found nothing, so its response cannot be measured")

    def speed_test(self, project: dict[str, int]) -> list[dict[str, float]]:
        """Return the three times of the SDK's speed test and their total, in ms per image."""
        place = {"projectId": project["projectId"], "dataset_ids": [project["dataset_id"]]}
        started = self.post("run_speedtest", **place, **_SPEED_TEST).raise_for_status().json()
        request = {"inference_request_uuid": started["inference_request_uuid"]}
        while not self.post("get_inference_progress", **request).json()["finished"]:
            time.sleep(0.1)
        times = self.post("pop_inference_results", **request).raise_for_status().json()
        results: list[dict[str, float]] = times["pending_results"]
        return results


# Per round: total seconds, and seconds of each request.
Load = dict[str, list[tuple[float, list[float]]]]


def _take_turns(
    asked: dict[str, _AppClient], project: dict[str, int], rounds: int
) -> tuple[Load, dict[str, list[dict[str, float]]]]:
    load: Load = {}
    times: dict[str, list[dict[str, float]]] = {runtime: [] for runtime in asked}
    for one in asked.values():
        for way in one.ways.values():
            way()
    for _ in range(rounds):
        for runtime, one in asked.items():
            times[runtime] += one.speed_test(project)
        for (clients, requests), name in itertools.product(_REQUESTS.items(), ("upload", "id")):
            for runtime, one in asked.items():
                row = f"{name}, clients {clients}, {runtime}"
                load.setdefault(row, []).append(_send_requests(one.ways[name], clients, requests))
    return load, times


def _send_requests(
    way: Callable[[], None], clients: int, requests: int
) -> tuple[float, list[float]]:
    """Return the total seconds and those of each request."""
    together = threading.Barrier(clients + 1)

    def work(mine: int) -> list[float]:
        together.wait()
        seconds = []
        for _ in range(mine):
            begin = time.perf_counter()
            way()
            seconds.append(time.perf_counter() - begin)
        return seconds

    with ThreadPoolExecutor(clients) as pool:
        parts = [pool.submit(work, requests // clients) for _ in range(clients)]
        together.wait()
        begin = time.perf_counter()
        seconds = [each for part in parts for each in part.result()]
        return time.perf_counter() - begin, seconds


def _summarize(load: Load, times: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    seconds: dict[str, dict[str, float]] = {}
    ratios: dict[str, float] = {}
    spreads: dict[str, list[float]] = {}
    rates: dict[str, float] = {}
    for row, parts in load.items():
        latencies = [each for _, own in parts for each in own]
        p95 = statistics.quantiles(latencies, n=20, method="inclusive")[-1]
        seconds[row] = {**summary(latencies), "p95": p95}
        rates[row] = statistics.median(len(own) / whole for whole, own in parts)
    for row, parts in load.items():
        cell, _, runtime = row.rpartition(", ")
        if runtime != BASELINE:
            baseline = f"{cell}, {BASELINE}"
            ratios[f"{row} vs {BASELINE}"] = rates[row] / rates[baseline]
            theirs = [whole for whole, _ in load[baseline]]
            spreads[f"{row} vs {BASELINE}"] = spread(theirs, [whole for whole, _ in parts])
    facts = {
        f"{runtime} alone": _parts(parts, seconds[f"upload, clients 1, {runtime}"])
        for runtime, parts in times.items()
    }
    return {
        "seconds": seconds,
        "rates": {"requests/s": rates},
        "ratios": ratios,
        "spread": spreads,
        "facts": facts,
    }


def _parts(times: list[dict[str, float]], alone: dict[str, float]) -> dict[str, float]:
    """Return the median ms of the three timers, and the detector's share of a single request."""
    names = ("preprocess", "inference", "postprocess")
    facts = {f"{name} ms": statistics.median(each[name] for each in times) for name in names}
    facts["request ms"] = 1000 * alone["median"]
    facts["share of the detector"] = facts["inference ms"] / facts["request ms"]
    return facts
