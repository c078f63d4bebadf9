"""Each work-around for the model benchmark, compared with the unmodified SDK."""

import sys

import numpy as np
import pytest

from tests.sdk import import_sdk

import_sdk()

import supervisely as sly  # noqa: E402 (imported in a thread above)
from supervisely.nn.benchmark.object_detection.evaluator import (  # noqa: E402
    ObjectDetectionEvaluator,
)
from supervisely.nn.benchmark.object_detection.metric_provider import MetricProvider  # noqa: E402
from supervisely.nn.training import train_app  # noqa: E402

from supervisely_integration.sdk.benchmark import (  # noqa: E402
    DetectionBenchmark,
    DetectionEvaluator,
    ap_of_labeled_classes,
    app_port,
    model_benchmark,
    subpixel_boxes,
)
from supervisely_integration.sdk.logs import collect_errors  # noqa: E402
from supervisely_integration.train.lifecycle import Lifecycle, TrainingStopped  # noqa: E402

BOX = (1.25, 2.5, 30.75, 40.875)
CORNERS = [[2.5, 1.25], [40.875, 30.75]]


@pytest.mark.parametrize(
    ("arguments", "environment", "port"),
    [
        ("main:train.app --host 127.0.0.1 --port 8123 --ws websockets", None, 8123),
        ("main:train.app", None, 8000),
        ("main:train.app", "8124", 8124),
        ("main:train.app --port 8125", "8124", 8125),
        ("-c --something-else", None, 8000),  # started by another server
    ],
)
def test_port_is_the_one_that_uvicorn_listens_on(monkeypatch, arguments, environment, port):
    monkeypatch.setattr(sys, "argv", ["uvicorn", *arguments.split()])
    monkeypatch.delenv("UVICORN_PORT", raising=False)
    if environment:
        monkeypatch.setenv("UVICORN_PORT", environment)
    assert app_port() == port


def test_stopped_benchmark_sends_only_cleanup_requests(monkeypatch):
    sent, lifecycle = [], Lifecycle(lambda: None)
    monkeypatch.setattr(sly.nn.inference.SessionJSON, "_post", lambda self, url: sent.append(url))
    bare = (train_app.SessionJSON, train_app.ObjectDetectionBenchmark, MetricProvider.AP_custom)
    with model_benchmark(lifecycle.check):
        assert train_app.ObjectDetectionBenchmark is DetectionBenchmark
        session = object.__new__(train_app.SessionJSON)
        session._post("/run_speedtest")
        lifecycle.stop("Stop button")
        with pytest.raises(TrainingStopped, match="Stop button"):
            session._post("/pop_inference_results")
        session._post("/stop_inference")
    assert sent == ["/run_speedtest", "/stop_inference"]
    after = (train_app.SessionJSON, train_app.ObjectDetectionBenchmark, MetricProvider.AP_custom)
    assert after == bare


def test_fractions_of_pixels_are_kept_within_the_block_only():
    with subpixel_boxes():
        rectangle = sly.Rectangle(*BOX)
        assert rectangle.to_json()["points"]["exterior"] == CORNERS
        label = sly.Label(rectangle, sly.ObjClass("cat", sly.Rectangle))
        annotation = sly.Annotation((64, 64), [label]).to_json()
        up = sly.Annotation._to_subpixel_coordinate_system_json(annotation)
        down = sly.Annotation._to_pixel_coordinate_system_json(up)
        assert down["objects"][0]["points"]["exterior"] == CORNERS
    # The unmodified SDK, in both places:
    assert sly.Rectangle(*BOX).to_json()["points"]["exterior"] == [[2, 1], [40, 30]]
    assert sly.Rectangle._round_subpixel_coordinates(*BOX) != BOX


def test_classes_without_boxes_do_not_count_in_ap50():
    metrics = object.__new__(MetricProvider)
    metrics.coco_precision = np.full((10, 101, 3, 4, 3), -1.0)
    metrics.coco_precision[:, :, 0] = 0.5
    metrics.coco_precision[:, :, 2] = 1.0
    metrics.iou_threshold_idx, metrics.iou_threshold_per_class = 0, None
    with pytest.warns(RuntimeWarning, match="Mean of empty slice"):
        assert metrics.AP_custom() == 0.5  # else `ap_of_labeled_classes` is not needed
    assert ap_of_labeled_classes(metrics) == 0.75


@pytest.mark.parametrize(
    ("objects", "detections", "limit"), [(100, 300, 100), (101, 50, 101), (150, 300, 300)]
)
def test_evaluator_counts_as_many_detections_as_training(monkeypatch, objects, detections, limit):
    content = [
        {"annotations": [{"image_id": 4, "category_id": 1}] * n} for n in (objects, detections)
    ]
    monkeypatch.setattr(ObjectDetectionEvaluator, "_convert_to_coco", lambda self: tuple(content))
    evaluator = object.__new__(DetectionEvaluator)
    evaluator.evaluation_params = evaluator._get_default_evaluation_params()
    assert evaluator.evaluation_params["max_detections"] == 100  # of the unmodified SDK
    assert list(evaluator._convert_to_coco()) == content
    assert evaluator.evaluation_params["max_detections"] == limit
    assert evaluator.evaluation_params["iou_threshold"] == 0.5


def test_reasons_of_logged_errors_are_collected():
    with collect_errors() as reasons:
        sly.logger.info("nothing")
        try:
            raise ValueError("too few boxes")
        except ValueError as error:
            sly.logger.error("it failed: %r", error, exc_info=True)
        sly.logger.error("failed again", exc_info=False)
    sly.logger.error("afterwards", exc_info=False)
    assert reasons == ["too few boxes", "failed again"]
