"""What the work-arounds for the model benchmark do, each alone."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tests.sdk import import_sdk

import_sdk()

import supervisely as sly  # noqa: E402 (imported in a thread above)

from rtdetrv2_pytorch.src.solver.stopping import StopFlag  # noqa: E402
from supervisely_integration.train.evaluation import (  # noqa: E402
    OwnSession,
    ap_of_labelled_classes,
    app_port,
    fractions_of_pixels,
    overheard_errors,
)
from supervisely_integration.train.lifecycle import Stopped  # noqa: E402


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
def test_the_port_is_the_one_that_uvicorn_listens_on(monkeypatch, arguments, environment, port):
    monkeypatch.setattr(sys, "argv", ["uvicorn", *arguments.split()])
    monkeypatch.delenv("UVICORN_PORT", raising=False)
    if environment:
        monkeypatch.setenv("UVICORN_PORT", environment)
    assert app_port() == port


def test_a_stopped_benchmark_asks_for_nothing_more_but_its_end(monkeypatch):
    sent = []
    monkeypatch.setattr(sly.nn.inference.SessionJSON, "_post", lambda self, url: sent.append(url))
    session = object.__new__(OwnSession)
    session._stop = StopFlag()
    session._post("/run_speedtest")
    session._stop.request("Stop button")
    with pytest.raises(Stopped, match="Stop button"):
        session._post("/pop_inference_results")
    session._post("/stop_inference")
    assert sent == ["/run_speedtest", "/stop_inference"]


def test_fractions_of_pixels_are_kept_and_only_there():
    box = (1.25, 2.5, 30.75, 40.875)
    with fractions_of_pixels():
        rectangle = sly.Rectangle(*box)
        assert rectangle.to_json()["points"]["exterior"] == [[2.5, 1.25], [40.875, 30.75]]
        label = sly.Label(rectangle, sly.ObjClass("cat", sly.Rectangle))
        annotation = sly.Annotation((64, 64), [label]).to_json()
        up = sly.Annotation._to_subpixel_coordinate_system_json(annotation)
        down = sly.Annotation._to_pixel_coordinate_system_json(up)
        assert down["objects"][0]["points"]["exterior"] == [[2.5, 1.25], [40.875, 30.75]]
    assert sly.Rectangle(*box).to_json()["points"]["exterior"] == [[2, 1], [40, 30]]


def test_classes_without_boxes_do_not_count():
    precision = np.full((10, 101, 3, 4, 3), -1.0)
    precision[:, :, 0] = 0.5
    precision[:, :, 2] = 1.0
    metrics = SimpleNamespace(coco_precision=precision, iou_threshold_idx=0)
    assert ap_of_labelled_classes(metrics) == 0.75


def test_the_reason_of_a_logged_error_is_known():
    with overheard_errors() as reasons:
        sly.logger.info("nothing")
        try:
            raise ValueError("too few boxes")
        except ValueError as error:
            sly.logger.error("it failed: %r", error, exc_info=True)
        sly.logger.error("and again", exc_info=False)
    sly.logger.error("afterwards", exc_info=False)
    assert reasons == ["too few boxes", "and again"]
