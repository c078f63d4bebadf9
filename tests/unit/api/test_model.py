"""Opening, training and exporting a model."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rtdetrv2 import RTDETR
from rtdetrv2.api.model_file import find_model
from rtdetrv2.api.training import start_options
from rtdetrv2.training.options import TrainOptions
from rtdetrv2.training.plan import plan_run
from rtdetrv2.training.progress import TrainingProgress
from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError, DatasetError
from tests.tiny import CONFIGS, SMALL_BACKBONE, tiny_file


def test_import_is_fast_and_lazy():
    script = (
        "import sys, rtdetrv2; assert 'torch' not in sys.modules; "
        "print('RTDETR' in dir(rtdetrv2), hasattr(rtdetrv2, 'other'))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == ("True False", "")


def test_model_of_a_checkpoint(model, checkpoint):
    assert model.class_names == ("cat", "dog", "owl")
    assert model.input_size_hw == (96, 160)
    assert model.path == checkpoint
    assert repr(model) == f"RTDETR('{checkpoint}', 3 classes, 96x160, pytorch on cpu)"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("best.pth", "last.pth"), "best.pth"),
        (("last.pth",), "last.pth"),
        (("checkpoints/last.pth", "checkpoints/best.pth"), "checkpoints/best.pth"),
        (
            ("checkpoints/best.pth", "checkpoints/e7.pth", "experiment_info.json"),
            "checkpoints/e7.pth",
        ),
    ],
)
def test_best_weights_of_a_folder(tmp_path, files, expected):
    (tmp_path / "checkpoints").mkdir()
    for name in files:
        (tmp_path / name).write_text(json.dumps({"best_checkpoint": "e7.pth"}))
    assert find_model(tmp_path).path == tmp_path / expected


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("S", "S"),
        ("RT-DETRv2-m", "M"),
        ("rtdetrv2-L", "L"),
        ("rtdetrv2_r101vd_6x_coco", "X"),
        ("rtdetrv2_r18vd_sp1_120e_coco", None),
        (CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_sp1_120e_coco.yml", None),
    ],
)
def test_names_with_random_weights(name, size):
    found = find_model(name, weights=None)
    assert (found.path, found.size) == (None, size)
    assert found.config.is_file()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.pth", "^none.pth: no such file; give a model file or one of RT-DETRv2-S, "),
        ("RT-DETRv2-Q", "^RT-DETRv2-Q: neither a file nor the name of a model; did you mean RT-DE"),
        ("yolo", "^yolo: neither a file nor .*; the models are RT-DETRv2-S, RT-DETRv2-M"),
        ("none.yml", "^none.yml: no such configuration"),
        (__file__, r"test_model.py: not a model; give a file that ends in .pth, "),
        (
            "rtdetrv2_r18vd_sp1_120e_coco",
            "has no published weights; give weights=FILE, or weights=",
        ),
    ],
)
def test_unknown_models_are_rejected(source, message):
    with pytest.raises((ConfigError, CheckpointError), match=message):
        RTDETR(source)


def test_folder_without_weights_is_rejected(tmp_path):
    with pytest.raises(ConfigError, match=r"neither best\.pth nor checkpoints/best\.pth in this"):
        RTDETR(tmp_path)


def test_weights_that_cannot_be_downloaded(monkeypatch, tmp_path):
    monkeypatch.setattr("rtdetrv2_pytorch.src.misc.weights.SUPERVISELY_CACHE", tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(
        find_model.__globals__["MODELS"],
        "S",
        ("rtdetrv2_r18vd_120e_coco.yml", "http://127.0.0.1:9/s.pth"),
    )
    with pytest.raises(
        CheckpointError, match=r"Could not download .* put the file at .*weights=None"
    ):
        RTDETR("S")


def test_runtime_is_checked(checkpoint):
    with pytest.raises(ConfigError, match="openvino needs a .onnx file"):
        RTDETR(checkpoint, runtime="OpenVINO")
    with pytest.raises(ConfigError, match="runtime = 'caffe': unknown"):
        RTDETR(checkpoint, runtime="caffe")


def test_export_and_predict(model, tmp_path, pixels):
    output = model.export(output=tmp_path / "a.onnx", size=(64, 96))
    exported = RTDETR(output, device="cpu", runtime="onnx")
    assert (output, exported.input_size_hw) == (tmp_path / "a.onnx", (64, 96))
    assert exported.class_names == model.class_names
    assert len(exported.predict(pixels, score=0)) > 0
    with pytest.raises(ConfigError, match=r"a\.onnx: only checkpoints can be exported"):
        exported.export()
    with pytest.raises(ConfigError, match=r"a\.onnx: an exported file cannot be trained"):
        exported.train("data")
    assert exported.class_names == model.class_names  # is open again


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"int8": True}, "^int8=True needs data: images of the training split for calibration"),
        ({"int8": True, "fp16": True}, "^int8=True and fp16=True: choose one"),
        ({"int8": True, "format": "tensorrt"}, "^int8=True: only for format='onnx'"),
        ({"format": "coreml"}, "^format = 'coreml': unknown; choose onnx, tensorrt"),
        ({"size": 100}, "size = 100 100: both must be multiples of 32"),
        ({"output": "a.engine"}, "give a name that ends in .onnx"),
    ],
)
def test_invalid_export_options_are_rejected(model, options, message):
    with pytest.raises(ConfigError, match=message):
        model.export(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 3, "time_budget": "2h"}, "^train: give epochs or time_budget, not both"),
        ({"time_budget": "soon"}, "^time_budget = 'soon': give minutes as 30m, or hours"),
    ],
)
def test_invalid_lengths_of_a_training_are_rejected(
    model, digits, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        model.train(digits, **options)


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """Train a tiny network from random weights."""
    folder = tmp_path_factory.mktemp("api")
    config = tiny_file(
        folder / "tiny.yml", folder / "out", digits, **merge(SMALL_BACKBONE, {"epoches": 1})
    )
    (folder / "link").symlink_to(digits)
    model = RTDETR(config, weights=None, device="cpu")
    options = {"examine": False, "seed": 3, "augmentation": "aerial"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return model, model.train("link", **options, update={"optimizer.lr": 1e-3})


def test_trained_model_has_the_best_weights(trained, digits):
    model, result = trained
    assert result.best == result.folder / "best.pth" == model.path
    assert result.last.is_file()
    assert result.report is None  # as configured
    assert (result.best_epoch, result.stopped) == (1, None)
    assert 0 <= result.metrics["AP"] <= result.metrics["AP50"] <= 1
    assert set(result.metrics["per_class"]) == set("0123456789") == set(model.class_names)
    found = model.predict(digits / "val", score=0)
    assert len(found) == 4
    saved = torch.load(result.best, weights_only=True)["config"]
    assert (saved["optimizer"]["lr"], saved["seed"]) == (1e-3, 3)
    assert saved["augmentation"] == "aerial"
    ops = saved["train_dataloader"]["dataset"]["transforms"]["ops"]
    assert {"type": "RandomQuarterTurn"} in ops


@pytest.mark.parametrize("options", [{}, {"int8": True}])
def test_export_after_training_uses_its_dataset(trained, digits, options):
    model, result = trained
    link = result.folder.with_name("link")
    link.unlink()
    try:
        with pytest.raises(DatasetError, match=f"^{link}: no such folder"):
            model.export(**options)
    finally:
        link.symlink_to(digits)


def test_val_gives_the_metrics_of_the_training(trained, digits):
    model, result = trained
    measured = model.val(digits)
    for name in ("AP", "AP50", "AR_100", "best_threshold"):
        assert measured[name] == pytest.approx(result.metrics[name], abs=1e-3), name
    assert set(measured["per_class"]) == set("0123456789")
    assert measured["num_images"] == 4
    with pytest.raises(ConfigError, match="none: no such folder"):
        model.val("none")


def test_curves_in_a_notebook(trained):
    _, result = trained
    html = result._repr_html_()
    assert f"AP {result.metrics['AP']:.3f}, AP50" in html
    assert html.count("<svg") >= 2
    assert "var(--s0)" in html
    assert "--s0:#1769d2" in html


def test_moved_checkpoint_is_fine_tuned_with_its_configuration(trained, tmp_path):
    moved = tmp_path / "moved.pth"
    shutil.copy(trained[1].best, moved)
    start = start_options(find_model(moved), [])
    cfg = YAMLConfig(start["config"])
    assert start["tuning"] == str(moved)
    assert cfg.yaml_cfg["eval_spatial_size"] == [64, 96]
    assert cfg.yaml_cfg["RTDETRTransformerv2"]["num_queries"] == 12
    assert not cfg.settings.resume


@pytest.mark.parametrize("name", ["tuning", "resume"])
def test_moved_checkpoint_is_trained_with_its_configuration_by_command(trained, tmp_path, name):
    moved = tmp_path / "moved.pth"
    shutil.copy(trained[1].best, moved)
    options = TrainOptions(data=tmp_path, **{name: str(moved)}, update=["epochs=7"])
    plan = plan_run(options, TrainingProgress())
    cfg = YAMLConfig(plan.config, **plan.overrides)
    assert cfg.yaml_cfg["eval_spatial_size"] == [64, 96]
    assert cfg.yaml_cfg["RTDETRTransformerv2"]["num_queries"] == 12
    assert cfg.epoches == 7
    assert not plan.is_automatic
    expected = {"tuning": Path("output", tmp_path.name), "resume": tmp_path}
    assert plan.output_dir == expected[name]  # not that of the old run
    chosen = TrainOptions(data=tmp_path, model="M", **{name: str(moved)})
    assert plan_run(chosen, TrainingProgress()).config.name == "rtdetrv2_r50vd_m_7x_coco.yml"


def test_checkpoint_without_configuration_is_not_trained(checkpoint, tmp_path):
    bare = tmp_path / "bare.pth"
    torch.save({"model": torch.load(checkpoint)["model"]}, bare)
    with pytest.raises(CheckpointError, match=r"bare.pth: .* its configuration; give --model, or"):
        plan_run(TrainOptions(data=tmp_path, tuning=str(bare)), TrainingProgress())


def test_training_needs_data(model):
    with pytest.raises(ConfigError, match="give data, the folder of a dataset, or sample=True"):
        model.train()
    assert len(model.predict(np.zeros((8, 8), np.uint8), score=0)) > 0
