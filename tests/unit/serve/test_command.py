"""The commands `predict` and `deploy`."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_pytorch.src.data.images.decoding import read_rgb
from rtdetrv2_pytorch.src.deploy.predictor import Predictor
from rtdetrv2_pytorch.src.deploy.runtimes import open_runtime
from supervisely_integration.paths import ROOT
from supervisely_integration.serve import local_prediction
from supervisely_integration.serve.command import group
from tests.tiny import tiny_config


@pytest.fixture(scope="module")
def model(digits, tmp_path_factory):
    """An untrained checkpoint with ten classes."""
    from rtdetrv2_pytorch.src.solver import DetSolver

    folder = tmp_path_factory.mktemp("model")
    config = tiny_config(folder / "run", digits, epoches=1, eval_spatial_size=[64, 64])
    return DetSolver(config).fit().checkpoints["last"]


@pytest.fixture
def predict(model, tmp_path, capsys):
    """Run `predict` with the model; returns (exit status, stdout, stderr)."""

    def run(*words):
        words = ["predict", *map(str, words), "--output", str(tmp_path / "out")]
        if "--model" not in words:
            words += ["--model", str(model)]
        capsys.readouterr()
        status = group(words)
        return status, *capsys.readouterr()

    return run


def test_image_gets_an_annotation_a_drawing_and_a_table(predict, model, digits, tmp_path):
    image = next((digits / "val").iterdir())
    pixels = read_rgb(image)
    ((found,), _) = Predictor(open_runtime(model)).predict([pixels], 0.0)
    names = found["labels"].tolist()
    classes = sorted(set(names))[1:]  # all classes but one
    settings = ("score=0.0", f"classes={','.join(map(str, classes))}")
    status, printed, errors = predict(image, "--draw", "--settings", *settings)
    assert (status, errors) == (0, "")
    expected = [
        (label, score, box)
        for label, score, box in zip(
            names, found["scores"].tolist(), found["boxes"].tolist(), strict=True
        )
        if label in classes
    ]
    assert 0 < len(expected) < len(names)
    lines = printed.splitlines()
    assert lines[:2] == [
        "score is read as confidence_threshold",
        f"{image.name}: {len(expected)} objects",
    ]
    assert lines[2].split() == ["class", "score", "x1", "y1", "x2", "y2"]
    label, score, box = expected[0]
    assert lines[3].split() == [str(label), f"{score:.2f}", *(f"{edge:.0f}" for edge in box)]
    drawn, written = tmp_path / "out" / image.name, tmp_path / "out" / f"{image.name}.json"
    assert lines[-2:] == [str(drawn), str(written)]
    content = json.loads(written.read_text())
    assert content["size"] == {"height": pixels.shape[0], "width": pixels.shape[1]}
    assert [(each["classTitle"], each["tags"][0]["value"]) for each in content["objects"]] == [
        (str(label), pytest.approx(score)) for label, score, _ in expected
    ]
    changed = np.abs(read_rgb(drawn).astype(int) - pixels).max(axis=2) > 60
    assert 0 < changed.mean() < 0.5


def test_folder_is_predicted_without_its_broken_image(predict, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    for name in "ab":
        Image.new("RGB", (40, 30)).save(folder / f"{name}.png")
    (folder / "torn.jpg").write_bytes(b"torn")
    status, printed, errors = predict(folder)
    lines = printed.splitlines()
    assert (status, errors, lines[1].startswith("2 images, ")) == (1, "", True)
    assert lines[0].startswith(f"{folder / 'torn.jpg'}: cannot be read as an image")
    assert lines[-1] == str(tmp_path / "out" / "some")
    assert sorted(each.name for each in (tmp_path / "out" / "some").iterdir()) == [
        "a.png.json",
        "b.png.json",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["IMAGE", "--settings", "clases=1"], "clases: unknown setting; did you mean classes?"),
        (["IMAGE", "--settings", "classes=cat"], "does not have 'cat'; its classes are 0, 1, 2"),
        (["IMAGE", "--settings", "0.3"], "--settings 0.3: give key=value"),
        (["IMAGE", "--runtime", "NCNN"], "runtime = 'ncnn': unknown; choose pytorch, "),
        (["IMAGE", "--device", "cuda:77"], "device = 'cuda:77': torch sees"),
        (["IMAGE", "--model", "no.pth"], "--model no.pth: no such file; the published models are"),
        (["IMAGE", "--model", "TORN"], "torn.pth: "),
        (["no.jpg"], "no.jpg: no such file or folder"),
        (["TORN"], "torn.pth: cannot be read as an image"),
        (["EMPTY"], "no images in this folder"),
    ],
)
def test_invalid_input_ends_in_one_sentence(predict, tmp_path, words, message):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (tmp_path / "torn.pth").write_bytes(b"torn")
    (tmp_path / "empty").mkdir()
    files = {"IMAGE": "a.png", "TORN": "torn.pth", "EMPTY": "empty"}
    status, printed, errors = predict(
        *(str(tmp_path / files[w]) if w in files else w for w in words)
    )
    assert (status, printed) == (1, "")
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_missing_input_is_a_usage_error(predict):
    status, _, errors = predict()
    assert status == 2
    assert "give an image, a folder, --project_id, --dataset_id or --image_id" in errors


def test_file_of_settings_is_read(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("confidence_threshold: 0.3\nclasses: [cat]\n")
    assert local_prediction.read_settings([str(path)]) == {
        "confidence_threshold": 0.3,
        "classes": ["cat"],
    }


@pytest.mark.parametrize("words", [[], ["predict"], ["deploy"]])
def test_help_needs_no_environment_and_no_engine(words, tmp_path):
    command = [sys.executable, "-m", "supervisely_integration.serve.main", *words, "--help"]
    before, started = os.times().children_user, time.monotonic()
    result = subprocess.run(
        command, cwd=ROOT, env={"HOME": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("Usage: ")
    assert os.times().children_user - before < 1
    assert time.monotonic() - started < 60
