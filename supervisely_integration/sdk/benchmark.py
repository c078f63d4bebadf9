"""The SDK's model benchmark, with the app's own port and COCO's numbers.

The benchmark serves the best checkpoint on the training app's own server, predicts the validation
split into a project, and compares that project with the labels. `docs/benchmark.md` relates its
numbers to those of the training.
"""

import logging
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click
import supervisely as sly
import uvicorn
from supervisely.geometry import point_location
from supervisely.nn.benchmark import base_benchmark
from supervisely.nn.benchmark.object_detection import benchmark as sdk_benchmark
from supervisely.nn.benchmark.object_detection import evaluator as sdk_evaluator
from supervisely.nn.benchmark.object_detection.metric_provider import MetricProvider
from supervisely.nn.inference import SessionJSON
from supervisely.nn.training import train_app as sdk_train_app

from rtdetrv2_pytorch.src.data.metrics.detection_limit import COCO_LIMIT, detection_limit
from rtdetrv2_pytorch.src.misc.text import counted

from .attributes import replaced

logger = logging.getLogger(__name__)

# An untrained network scores everything with 0.01: three quarters of all detections, and a
# thousandth of the AP, are below this threshold.
MIN_SCORE = 0.02
CPU_ITERATIONS = 20  # of the speed test, for each of its three batch sizes
_DEFAULT_PORT = 8000
_CLEANUP = ("stop_inference", "clear_inference_request")  # requests of a benchmark that failed


def app_port() -> int:
    """Return the port of this app, as uvicorn reads it from the command line or environment."""
    with suppress(click.ClickException, click.exceptions.Exit):
        return int(uvicorn.main.make_context("uvicorn", sys.argv[1:]).params["port"])
    return _DEFAULT_PORT


@contextmanager
def subpixel_boxes() -> Iterator[None]:
    """Keep fractions of pixels in rectangles.

    `PointLocation.__init__` (supervisely/geometry/point_location.py) and
    `Rectangle._round_subpixel_coordinates` (supervisely/geometry/rectangle.py) round predictions to
    whole pixels, as labels are. Small boxes that are nearly right become exactly right, and the AP
    becomes too high.
    """

    def unchanged(*corners: float) -> tuple[float, ...]:
        return corners

    with (
        replaced(point_location, "floor", float),
        replaced(sly.Rectangle, "_round_subpixel_coordinates", staticmethod(unchanged)),
    ):
        yield


def ap_of_labeled_classes(metrics: MetricProvider) -> float:
    """Average the AP over the classes that have a box in the split, as COCO does.

    `MetricProvider.AP_custom` (supervisely/nn/benchmark/object_detection/metric_provider.py) counts
    the others as 0 in AP50 and AP75, but not in mAP.
    """
    precision = metrics.coco_precision[metrics.iou_threshold_idx, :, :, 0, 2]
    return float(precision[precision > -1].mean())


class DetectionEvaluator(sdk_evaluator.ObjectDetectionEvaluator):  # type: ignore[misc]
    """The SDK's evaluator with the training's limit of detections per class and image.

    `supervisely/nn/benchmark/object_detection/evaluation_params.yaml` limits them to 100, which
    lowers the AP of images with more objects of a class.
    """

    evaluation_params: dict[str, Any] | None

    def _convert_to_coco(self) -> tuple[Any, Any]:
        truth, found = super()._convert_to_coco()
        limit = detection_limit(
            _most_common((a["image_id"], a["category_id"]) for a in truth["annotations"]),
            _most_common(a["image_id"] for a in found["annotations"]),
        )
        if limit != COCO_LIMIT:
            logger.info(
                "The report counts %s per class and image; COCO counts %d, which gives "
                "the lower AP_coco of the training",
                counted(limit, "detection"),
                COCO_LIMIT,
            )
        self.evaluation_params = {**(self.evaluation_params or {}), "max_detections": limit}
        return truth, found


def _most_common(keys: Iterable[Hashable]) -> int:
    return max(Counter(keys).values(), default=0)


class DetectionBenchmark(sdk_benchmark.ObjectDetectionBenchmark):  # type: ignore[misc]
    """The SDK's benchmark with low-score detections and unrounded predictions.

    `supervisely.nn.benchmark.object_detection.benchmark` requests only detections above 0.05, which
    lowers the AP and finds nothing after a short training. Its speed test runs 100 batches of each
    size, which takes hours on a CPU.
    """

    def _get_evaluator_class(self) -> type:
        return DetectionEvaluator

    def run_inference(self, *args: Any, **options: Any) -> None:
        """Predict the validation split."""
        with replaced(sdk_benchmark, "CONF_THRES", MIN_SCORE), subpixel_boxes():
            super().run_inference(*args, **options)

    def download_projects(self, save_images: bool = False) -> tuple[str, str]:
        """Download predictions unrounded, and labels as they were downloaded for training."""
        _, predictions = self.get_project_paths()
        with subpixel_boxes():
            base_benchmark.download_project(
                self.api,
                self.dt_project_info.id,
                predictions,
                log_progress=True,
                save_images=save_images,
                save_image_info=True,
            )
        paths: tuple[str, str] = super().download_projects(save_images)
        return paths

    def run_speedtest(self, model_session: SessionJSON, project_id: int, **options: Any) -> None:
        """Measure the inference time of batches of 1, 8 and 16 images."""
        if model_session.get_deploy_info()["device"] == "cpu":
            options.setdefault("num_iterations", CPU_ITERATIONS)
        super().run_speedtest(model_session, project_id, **options)


@contextmanager
def model_benchmark(before_request: Callable[[], None]) -> Iterator[None]:
    """Adapt `TrainApp._run_model_benchmark` (supervisely/nn/training/train_app.py).

    It takes no benchmark class, and connects to port 8000, even if the app listens on another port.

    Args:
        before_request: called before every request to the served model; may raise to stop.
    """

    class AppSession(SessionJSON):  # type: ignore[misc]
        """Connects to this app."""

        def __init__(self, api: sly.Api, session_url: str) -> None:
            super().__init__(api, session_url=f"http://localhost:{app_port()}")

        def _post(self, url: str, **options: Any) -> Any:
            if not url.endswith(_CLEANUP):
                before_request()
            return super()._post(url, **options)

    with (
        replaced(sdk_train_app, "SessionJSON", AppSession),
        replaced(sdk_train_app, "ObjectDetectionBenchmark", DetectionBenchmark),
        replaced(MetricProvider, "AP_custom", ap_of_labeled_classes),
    ):
        yield
