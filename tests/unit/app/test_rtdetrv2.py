"""The serving class: settings, boxes and errors."""

import errno
import queue
import sys
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from rtdetrv2_pytorch.src.misc.errors import ConfigError
from supervisely_integration.paths import INFERENCE_SETTINGS
from supervisely_integration.serve.prediction_settings import PredictionSettings, check_classes
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
        ({"clases": ["cat"]}, "^clases: unknown setting; did you mean classes?"),
        ({"treshold": 0.3}, "^treshold: unknown setting; did you mean confidence_threshold?"),
        ({"agnostic": True}, "^agnostic: unknown setting; the settings are confidence_threshold, "),
        ({"conf": 0.1, "score": 0.2}, "^conf = 0.1 and score = 0.2 are both confidence_threshold"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        PredictionSettings.read(settings)


@pytest.mark.parametrize(
    "name", ["threshold", "score", "confidence", "conf_thresh", "conf_thres", "min_score"]
)
def test_other_names_of_the_threshold_are_accepted(name):
    assert PredictionSettings.read({name: 0.3, "confidence_threshold": 0.5}) == PredictionSettings(
        0.3
    )
    assert PredictionSettings.read({"iou": 0.6, "nms_iou": "none"}).nms_iou == 0.6


def test_arguments_that_the_client_of_the_sdk_copies_into_settings_are_accepted(monkeypatch):
    from supervisely.nn.model.prediction_session import PredictionSession

    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between its retries

    session = PredictionSession.__new__(PredictionSession)
    arguments = {"batch_size": 4, "conf": 0.3, "stride": 2, "num_frames": 8, "upload_mode": "x"}
    try:
        session.__init__("http://127.0.0.1:9", video_id=1, **arguments)
    except Exception as error:  # noqa: BLE001 (nothing listens there)
        assert "127.0.0.1" in str(error)
    assert session.inference_settings.keys() > {"batch_size", "step", "frames_count"}
    assert PredictionSettings.read(session.inference_settings) == PredictionSettings(0.3)


def test_unknown_classes_are_rejected_with_the_list():
    check_classes(None, ["cat", "dog"])
    check_classes(["dog"], ["cat", "dog"])
    with pytest.raises(
        ConfigError, match="^classes: the model does not have 'cow'; its classes are cat, dog$"
    ):
        check_classes(["cat", "cow"], ["cat", "dog"])
    with pytest.raises(ConfigError, match="^classes = 'cat': give a list of class names$"):
        check_classes("cat", ["cat", "dog"])


def test_settings_file_holds_the_defaults():
    import yaml

    values = yaml.safe_load(INFERENCE_SETTINGS.read_text(encoding="utf-8"))
    assert PredictionSettings.read(values) == PredictionSettings()


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
    assert first.bbox_tlbr == [
        20.0,
        10.0,
        39.25,
        29.5,
    ]  # rows first; the ends are inside
    assert second.bbox_tlbr == [0.0, 0.0, 49.0, 99.0]


def test_boxes_are_clipped_and_at_least_one_pixel_wide():
    outside, thin, corner = predictions(
        [-5.0, -5.0, 105.0, 60.0], [10.2, 10.2, 10.4, 10.4], [99.8, 49.9, 100.0, 50.0]
    )
    assert outside.bbox_tlbr == [0.0, 0.0, 49.0, 99.0]
    assert thin.bbox_tlbr == pytest.approx([10.2] * 4, abs=1e-5)
    assert corner.bbox_tlbr == [49.0, 99.0, 49.0, 99.0]


def test_whole_pixels_are_the_nearest_ones():
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
def test_runtimes_are_found_in_any_spelling(name, expected):
    from supervisely_integration.sdk.deployment import runtime_name

    assert runtime_name(name) == expected


def test_unknown_runtimes_and_devices_are_rejected():
    from supervisely_integration.sdk.deployment import complete_deploy_params

    assert complete_deploy_params({"device": "cpu"}) == {"device": "cpu", "runtime": "PyTorch"}
    with pytest.raises(ConfigError, match="^runtime = 'NCNN': there are PyTorch, ONNXRuntime, Ten"):
        complete_deploy_params({"runtime": "NCNN"})
    with pytest.raises(ConfigError, match=r"^device = 'cuda:99': torch sees \d GPUs here"):
        complete_deploy_params({"device": "cuda:99"})


def test_requests_have_unique_ids_and_no_limit_of_results(monkeypatch):
    """The unmodified SDK derives ids from the time, and pauses at 500 results."""
    from supervisely.nn.inference import inference_request as sdk

    from supervisely_integration.sdk.inference import RequestsManager

    monkeypatch.setattr(sdk.time, "time", lambda: 1.0)  # the clock
    bare, ours = sdk.InferenceRequestsManager(), RequestsManager()
    assert bare.create().uuid == bare.create().uuid  # else `RequestsManager` is not needed
    assert ours.create().uuid != ours.create().uuid

    def produce(inference_request):
        inference_request.add_results([{}] * 501)
        return inference_request.is_paused()

    assert produce(bare.create())
    assert len(ours.run(produce)) == 501


def test_end_of_a_request_is_noticed_at_once(monkeypatch):
    """The threads of the unmodified SDK wait a second for one more item."""
    from supervisely.nn.inference import uploader

    from supervisely_integration.sdk.inference import ShortWaitQueue

    class RecordingQueue(queue.Queue):
        timeouts: ClassVar[list] = []

        def get(self, block=True, timeout=None):
            self.timeouts.append(timeout)
            raise StopIteration  # ends the thread

    def uploads():
        started = uploader.Uploader(upload_f=lambda items: None, notify_f=lambda items: None)
        started._upload_thread.join()
        started._notify_thread.join()

    modules = SimpleNamespace(Queue=RecordingQueue, Empty=queue.Empty)
    monkeypatch.setattr(uploader, "queue", modules)
    uploads()
    assert RecordingQueue.timeouts[0] == 1.0  # else `ShortWaitQueue` is not needed

    items = ShortWaitQueue()
    with pytest.raises(queue.Empty):
        items.get(timeout=1e6)
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
def test_json_bodies_are_checked(body, problem):
    from supervisely_integration.access.bodies import body_problem

    found = body_problem(body)
    assert (found or "").startswith(problem or "") and (found is None) == (problem is None)


def test_command_line_of_the_sdk_gets_the_runtime_of_the_file_and_an_existing_device(monkeypatch):
    from supervisely_integration.sdk.deployment import parse_command_line

    def parse(*words):
        parsed = []

        def sdk():
            parsed.extend(sys.argv[2:])
            return SimpleNamespace(runtime="PyTorch"), True

        monkeypatch.setattr(sys, "argv", ["main.py", *words])
        arguments, _ = parse_command_line(sdk)
        return arguments and arguments.runtime, parsed

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert parse("deploy", "--runtime", "openvino") == ("OpenVINO", ["--device", "cpu"])
    named = ["--model", "best.onnx", "--device", "cuda:1"]
    assert parse("deploy", *named) == ("ONNXRuntime", named)
    assert parse("main:model.app") == (None, [])


@pytest.mark.parametrize(
    ("words", "variable", "host"),
    [
        ([], "", "127.0.0.1"),
        (["--host", "0.0.0.0"], "", "0.0.0.0"),
        (["--host=::1"], "0.0.0.0", "::1"),
        ([], "0.0.0.0", "0.0.0.0"),  # as docker/Dockerfile.deploy sets it
    ],
)
def test_deploy_listens_on_loopback_by_default(monkeypatch, words, variable, host):
    from supervisely_integration.serve.rtdetrv2 import RTDETRv2

    monkeypatch.setenv("UVICORN_HOST", variable)
    monkeypatch.setattr(sys, "argv", ["main.py", "deploy", "--model", "RT-DETRv2-S", *words])
    listening = []
    monkeypatch.setattr("uvicorn.run", lambda app, **options: listening.append(options))
    monkeypatch.setattr("supervisely_integration.serve.rtdetrv2.prepare_server", lambda model: None)
    model = object.__new__(RTDETRv2)
    model._app = None
    model._args, _ = model._parse_cli_deploy_args()
    model._run_server()
    assert [options["host"] for options in listening] == [host]


def test_models_with_random_weights_are_not_offered(tmp_path, monkeypatch):
    import supervisely as sly

    from supervisely_integration.serve.rtdetrv2 import RTDETRv2

    for name in ("read", "read_bytes"):  # the constructor replaces them
        monkeypatch.setattr(sly.image, name, getattr(sly.image, name))
    model = RTDETRv2(model_dir=str(tmp_path))
    names = [row["Model"] for row in model.pretrained_models]
    assert len(names) == 12 and not [name for name in names if "random" in name]


def test_folders_of_ended_processes_are_removed(tmp_path, monkeypatch):
    from supervisely_integration.sdk import inference

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "no locks")

    (tmp_path / "cache" / "of a killed process").mkdir(parents=True)
    (tmp_path / "cache" / "of a killed process" / "IMAGE_1.png").touch()
    first, second = (inference.own_folder(tmp_path / "cache") for _ in range(2))
    assert set((tmp_path / "cache").iterdir()) == {first, second}
    monkeypatch.setattr(inference.fcntl, "flock", no_locks)
    third = inference.own_folder(tmp_path / "cache")
    assert third.parent == tmp_path / "cache"
    assert set(third.parent.iterdir()) == {first, second}
