"""The serving class: settings, boxes, errors; values by hand."""

import subprocess
import sys

import pytest
import torch

from rtdetrv2_pytorch.src.misc.errors import ConfigError
from supervisely_integration.paths import INFERENCE_SETTINGS, ROOT
from supervisely_integration.serve.settings import PredictionSettings, with_threshold
from tests.sdk import import_sdk

import_sdk()


# Settings


@pytest.mark.parametrize(
    ("settings", "threshold", "overlap"),
    [
        ({}, 0.5, None),
        ({"confidence_threshold": 0.3}, 0.3, None),
        ({"confidence_threshold": "0.25", "nms_iou": "0.7"}, 0.25, 0.7),
        ({"confidence_threshold": " Auto "}, "auto", None),
        ({"conf": 0.1, "confidence_threshold": 0.5}, 0.1, None),
        ({"confidence_threshold": 0, "nms_iou": 1}, 0, 1),
        ({"nms_iou": "none"}, 0.5, None),
        ({"nms_iou": False}, 0.5, None),
        ({"nms_iou": None, "classes": ["cat"], "sliding_window_mode": "basic"}, 0.5, None),
    ],
)
def test_settings_are_read(settings, threshold, overlap):
    assert PredictionSettings.read(settings) == PredictionSettings(threshold, overlap)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"confidence_threshold": 1.5}, r"^confidence_threshold = 1.5: give a number from 0 to 1"),
        ({"conf": "high"}, "^confidence_threshold = 'high': give a number from 0 to 1, or auto$"),
        ({"conf": True}, "confidence_threshold = True"),
        ({"conf": float("nan")}, "confidence_threshold = nan"),
        ({"nms_iou": -1}, "^nms_iou = -1: give a number from 0 to 1, or none$"),
        ({"nms_iou": 0}, "^nms_iou = 0: "),
        ({"confidence_treshold": 0.3}, "unknown setting; did you mean confidence_threshold?"),
        ({"nms_lou": 0.3}, "unknown setting; did you mean nms_iou?"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        PredictionSettings.read(settings)


def test_settings_of_others_change_nothing_and_are_said(caplog):
    assert PredictionSettings.read({"agnostic": True}) == PredictionSettings()
    assert caplog.messages == ["agnostic: unknown setting, it changes nothing"]


def test_the_file_holds_the_defaults():
    import yaml

    values = yaml.safe_load(INFERENCE_SETTINGS.read_text(encoding="utf-8"))
    assert PredictionSettings.read(values) == PredictionSettings()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"conf": 0.2}, {"confidence_threshold": 0.2}),
        ({"conf": None}, {}),
        ({"conf": 0.2, "confidence_threshold": 0.4}, {"confidence_threshold": 0.4}),
        ({"confidence": "auto", "nms_iou": 0.5}, {"confidence_threshold": "auto", "nms_iou": 0.5}),
    ],
)
def test_other_names_of_the_threshold(given, expected):
    assert with_threshold(given) == expected


# Boxes


def predictions(*boxes, size_hw=(50, 100)):
    from supervisely_integration.serve.rtdetrv2 import to_predictions

    count = len(boxes)
    detections = {
        "labels": torch.arange(count),
        "boxes": torch.tensor(boxes),
        "scores": torch.linspace(0.9, 0.5, count),
    }
    return to_predictions(detections, [f"class {i}" for i in range(count)], size_hw)


def test_boxes_by_hand():
    first, second = predictions([10.0, 20.0, 30.5, 40.25], [0.0, 0.0, 100.0, 50.0])
    assert (first.class_name, second.class_name) == ("class 0", "class 1")
    assert first.score == pytest.approx(0.9)
    assert first.bbox_tlbr == [20.0, 10.0, 39.25, 29.5]  # rows first; the last ones are inside
    assert second.bbox_tlbr == [0.0, 0.0, 49.0, 99.0]


def test_boxes_stay_in_the_image_and_have_a_pixel():
    outside, thin, corner = predictions(
        [-5.0, -5.0, 105.0, 60.0], [10.2, 10.2, 10.4, 10.4], [99.8, 49.9, 100.0, 50.0]
    )
    assert outside.bbox_tlbr == [0.0, 0.0, 49.0, 99.0]
    assert thin.bbox_tlbr == pytest.approx([10.2] * 4, abs=1e-5)
    assert corner.bbox_tlbr == [49.0, 99.0, 49.0, 99.0]


def test_whole_pixels_are_the_nearest():
    from supervisely_integration.serve.rtdetrv2 import whole_pixels

    assert whole_pixels([19.5, 9.4, 39.25, 29.6]) == [20, 9, 39, 30]


# Deploying


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (None, "PyTorch"),
        ("pytorch", "PyTorch"),
        ("onnx", "ONNXRuntime"),
        ("TRT", "TensorRT"),
        ("openvino", "OpenVINO"),
    ],
)
def test_runtimes_are_found_by_any_spelling(name, expected):
    from supervisely_integration.sdk.inference import runtime_type

    assert runtime_type(name) == expected


def test_a_runtime_or_device_that_is_not_there():
    from supervisely_integration.sdk.inference import complete_deploy_params

    assert complete_deploy_params({"device": "cpu"}) == {"device": "cpu", "runtime": "PyTorch"}
    with pytest.raises(ConfigError, match="^runtime = 'NCNN': there are PyTorch, ONNXRuntime, Ten"):
        complete_deploy_params({"runtime": "NCNN"})
    with pytest.raises(ConfigError, match=r"^device = 'cuda:99': torch sees \d GPUs here"):
        complete_deploy_params({"device": "cuda:99"})


def test_requests_have_ids_of_their_own_and_no_pause(monkeypatch):
    """Of the SDK: ids are made of the time, which may stand still; results stop at 500."""
    from supervisely.nn.inference import inference_request as sdk

    from supervisely_integration.sdk.inference import Requests

    monkeypatch.setattr(sdk.time, "time", lambda: 1.0)  # the clock
    bare, ours = sdk.InferenceRequestsManager(), Requests()
    assert bare.create().uuid == bare.create().uuid  # else the work-around is no longer needed
    assert ours.create().uuid != ours.create().uuid

    def produce(inference_request):
        inference_request.add_results([{}] * 501)
        return inference_request.is_paused()

    assert produce(bare.create())
    assert len(ours.run(produce)) == 501


def test_the_end_of_a_request_is_noticed_at_once():
    """The SDK's threads wait for one more item for a second; else the work-around is not needed."""
    import inspect
    import queue

    from supervisely.nn.inference import uploader

    from supervisely_integration.sdk.inference import PromptQueue

    for loop in (uploader.Uploader._upload_loop, uploader.Uploader._notify_loop):
        assert "else 1.0" in inspect.getsource(loop)
    items = PromptQueue()
    with pytest.raises(queue.Empty):
        items.get(timeout=1e6)  # is not waited for
    items.put("item")
    assert items.get(timeout=1e6) == "item"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"state": {}}', None),
        (b"{}", None),
        (b"{garbage", "the body is not JSON"),
        (b"\xff\xfe", "the body is not JSON"),
        (b"[1]", "the body is a list; send an object with a state"),
        (b'{"state": null}', "state is a NoneType; send an object"),
        (b'{"state": {}, "context": 3}', "context is a int; send an object"),
    ],
)
def test_bodies_are_checked(body, problem):
    from supervisely_integration.serve.routes import body_problem

    found = body_problem(body)
    assert (found or "").startswith(problem or "") and (found is None) == (problem is None)


def command_line(*words):
    return subprocess.run(
        [sys.executable, "-m", "supervisely_integration.serve.main", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("file", "runtime", "said"),
    [
        ("no.pth", "NCNN", "ConfigError: runtime = 'NCNN': there are PyTorch"),
        ("torn.onnx", "ONNXRuntime", "ExportError: "),
        ("torn.pth", "PyTorch", "CheckpointError: "),
    ],
)
def test_the_command_line_says_what_is_wrong_in_a_line(tmp_path, file, runtime, said):
    path = tmp_path / file
    if file != "no.pth":
        path.write_bytes(b"torn")
    ended = command_line("predict", "x.jpg", "--model", str(path), "--runtime", runtime)
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(said) and (file in last or "NCNN" in last)
    assert "Traceback" not in ended.stderr


def test_the_table_offers_no_random_weights(tmp_path):
    from supervisely_integration.serve.rtdetrv2 import RTDETRv2

    model = RTDETRv2(model_dir=str(tmp_path))
    names = [row["Model"] for row in model.pretrained_models]
    assert len(names) == 12 and not [name for name in names if "random" in name]
