"""Files that a training saves in `export/`, and reports of failed exports."""

import json

import pytest

from rtdetrv2_pytorch.src.deploy.runtimes import open_runtime
from tests.app.experiment import SIZE
from tests.app.real_app import CLASSES, read_json

pytestmark = pytest.mark.slow


def test_onnx_file_comes_with_classes_and_parity_report(experiment, tmp_path):
    names = {name for name in experiment.files if name.startswith("export/")}
    assert names == {"export/best.onnx", "export/classes.json", "export/parity.json"}
    assert experiment.info["export"] == {"ONNXRuntime": "export/best.onnx"}
    classes = read_json(experiment.store, experiment.files["export/classes.json"])
    assert classes == {str(number): name for number, name in enumerate(CLASSES)}
    report = read_json(experiment.store, experiment.files["export/parity.json"])["best.onnx"]
    assert report["failures"] == []
    assert report["images"] == "4 of 4 images of instances_val.json and 2 crops"
    assert report["batch_sizes"] == [1, 7]
    assert "best.onnx: onnxruntime against PyTorch on 4 of 4 images" in experiment.log

    alone = tmp_path / "best.onnx"
    contents = experiment.store.files.contents(experiment.files["export/best.onnx"])
    alone.write_bytes(contents.read_bytes())
    card = open_runtime(alone).card
    assert list(card.class_names) == CLASSES
    assert list(card.input_size_hw) == SIZE


def test_failed_export_is_logged_as_an_error(experiment):
    events = [json.loads(line) for line in experiment.log.splitlines() if line.startswith("{")]
    errors = [event["message"] for event in events if event["level"] == "error"]
    assert any(
        message.startswith("The experiment has no TensorRT export: TensorRT is not available")
        for message in errors
    )


def test_token_is_in_no_log_and_no_file(experiment):
    """The app gets it from its environment, as on the platform."""
    token = experiment.instance.token
    assert len(token) >= 32
    assert token not in experiment.log
    assert experiment.files
    leaking = [
        name
        for name, record in experiment.files.items()
        if token.encode() in experiment.store.files.contents(record).read_bytes()
    ]
    assert leaking == []
