"""What a training leaves in `export/`, and what it says when an export fails."""

from types import SimpleNamespace

import pytest

from rtdetrv2_pytorch.src.deploy.runtimes import open_runtime
from tests.app.running import (
    CLASSES,
    files_below,
    make_project,
    read_json,
    state_of,
    train_to_end,
)

RUNTIMES = {"ONNXRuntime": True, "TensorRT": True}


@pytest.fixture(scope="module")
def exported(instance, tmp_path_factory):
    """A tiny training that was asked for both exports, without a GPU."""
    folder = tmp_path_factory.mktemp("exports")
    project_id = make_project(instance.store, folder / "digits", name="digits")
    split = {"method": "tags", "train_tag": "train", "val_tag": "val", "untagged_action": "ignore"}
    state = state_of(split)
    state["options"]["export"] = {"enable": True, **RUNTIMES}
    task_id, log = train_to_end(instance, folder / "task", project_id, state)
    files = files_below(instance.store, f"/experiments/{project_id}_digits/{task_id}_RT-DETRv2")
    return SimpleNamespace(
        store=instance.store,
        files=files,
        info=read_json(instance.store, files["experiment_info.json"]),
        log=log,
    )


@pytest.mark.slow
def test_the_onnx_file_comes_with_its_classes_and_its_proof(exported, tmp_path):
    names = {name for name in exported.files if name.startswith("export/")}
    assert names == {"export/best.onnx", "export/classes.json", "export/parity.json"}
    assert exported.info["export"] == {"ONNXRuntime": "export/best.onnx"}
    classes = read_json(exported.store, exported.files["export/classes.json"])
    assert classes == {str(number): name for number, name in enumerate(CLASSES)}
    report = read_json(exported.store, exported.files["export/parity.json"])["best.onnx"]
    assert report["failures"] == []
    assert report["images"] == "4 of 4 images of instances_val.json and 2 crops"
    assert report["batch_sizes"] == [1, 7]
    assert "best.onnx: onnxruntime against PyTorch on 4 of 4 images" in exported.log

    alone = tmp_path / "best.onnx"
    alone.write_bytes(
        exported.store.files.contents(exported.files["export/best.onnx"]).read_bytes()
    )
    card = open_runtime(alone).card
    assert list(card.class_names) == CLASSES
    assert card.input_size_hw == (64, 64)


@pytest.mark.slow
def test_an_export_that_fails_is_the_last_error_told(exported):
    errors = [line for line in exported.log.splitlines() if '"level": "error"' in line]
    last = errors[-1]
    assert "The experiment is complete, but not its exports: TensorRT cannot be used here" in last


@pytest.mark.slow
def test_the_token_is_in_no_log_and_in_no_file(instance, exported):
    """The app has it from its environment, as on the platform."""
    assert len(instance.token) >= 32
    assert instance.token not in exported.log
    secret = instance.token.encode()
    leaking = [
        name
        for name, record in exported.files.items()
        if secret in exported.store.files.contents(record).read_bytes()
    ]
    assert exported.files
    assert leaking == []
