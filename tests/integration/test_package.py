"""The wheel, installed into a fresh environment outside the clone."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml
from packaging.requirements import Requirement
from PIL import Image

from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from tests.random_detectors import random_images, save_random_detector
from tests.tiny import tiny_values

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
UV = shutil.which("uv") or shutil.which(str(ROOT / ".uv" / "bin" / "uv"))


def run(*words, cwd, **environment):
    """Run a command without PYTHONPATH, which would find the clone."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [*map(str, words)],
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if UV is None:
        pytest.skip("uv is not installed; `make uv` installs it")
    folder = tmp_path_factory.mktemp("wheel")
    result = run(UV, "build", "--quiet", "--wheel", "--out-dir", folder, ROOT, cwd=folder)
    skip_without_registry(result)
    (path,) = folder.glob("*.whl")
    return path


def skip_without_registry(result):
    if result.returncode:
        if re.search(r"error sending request|dns error|Connect|timed out", result.stderr):
            pytest.skip("the package registry cannot be reached")
        pytest.fail(result.stderr)


def link_bytecode(environment):
    """Link the compiled modules of this environment; Python ignores those of other versions."""
    ours = Path(torch.__file__).parents[1]
    theirs = environment / ours.relative_to(sys.prefix)
    for cache in ours.rglob("__pycache__"):
        target = theirs / cache.relative_to(ours)
        if target.parent.is_dir() and not target.exists():
            shutil.copytree(cache, target, copy_function=os.link)


@pytest.mark.slow
def test_wheel_predicts_exports_and_trains_outside_the_clone(wheel, tmp_path):
    python = tmp_path / "env" / "bin" / "python"
    command = tmp_path / "env" / "bin" / "rtdetrv2"
    lock = ROOT / "docker" / "requirements.lock"

    def install(extras):
        # The processor's build of ONNX Runtime; the lock has the one for GPUs.
        words = ("pip", "install", "--quiet", "--python", python, "--constraints", lock)
        skip_without_registry(run(UV, *words, f"{wheel}[{extras}]", cwd=tmp_path))
        link_bytecode(tmp_path / "env")

    made = run(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "env", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    install("onnx")
    save_random_detector(tmp_path / "best.pth")
    pixels = (255 * random_images(1, (60, 80))[0].permute(1, 2, 0).numpy()).astype("uint8")
    Image.fromarray(pixels).save(tmp_path / "image.png")

    code = "import rtdetrv2, rtdetrv2_pytorch; print(rtdetrv2.__file__, rtdetrv2_pytorch.__file__)"
    places = run(python, "-c", code, cwd=tmp_path).stdout.split()
    assert all(place.startswith(str(tmp_path / "env")) for place in places)
    exported = run(command, "export", "best.pth", "--images", "image.png", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    for model in ("best.pth", "best.onnx"):
        found = run(command, "predict", model, "image.png", "--score", "0.01", cwd=tmp_path)
        assert found.returncode == 0, found.stderr
        assert "image.png" in found.stdout
    missing = run(command, "train", "--sample", cwd=tmp_path)
    assert missing.returncode == 1
    assert "pip install 'rtdetrv2[train]'" in missing.stderr

    install("onnx,train")
    data = tmp_path / "digits"
    make_digits_dataset(data, num_train=4, num_val=2)
    recipe = Path(places[1]).parent / "configs" / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml"
    values = {**tiny_values(tmp_path / "run", data), "epoches": 1, "report": True}
    values["__include__"] = [str(recipe)]
    (tmp_path / "my.yml").write_text(yaml.safe_dump(values))
    trained = run(command, "train", "-c", "my.yml", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert {"best.pth", "last.pth", "report.html"} <= {p.name for p in (tmp_path / "run").iterdir()}


def test_pins_are_within_the_bounds_of_the_package():
    extras = PROJECT["optional-dependencies"]
    bounds = [Requirement(text) for text in [*PROJECT["dependencies"], *sum(extras.values(), [])]]
    lock = (ROOT / "docker" / "requirements.lock").read_text()
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", lock, re.M))
    unknown = []
    for bound in bounds:
        if bound.name == "rtdetrv2":
            continue
        assert any("<" in str(one) for one in bound.specifier), f"{bound}: no upper bound"
        if bound.name in pinned:
            assert bound.specifier.contains(pinned[bound.name]), f"{bound}: {pinned[bound.name]}"
        else:
            unknown.append(bound.name)
    # Not in the image.
    optional = {"av", "clearml", "mlflow", "supervision", "wandb"}
    assert {*unknown} <= optional | {"onnxruntime", "tensorrt-cu12"}
    for name in optional & {*unknown}:
        (bound,) = [bound for bound in bounds if bound.name == name]
        # The tests use the part of MLflow without its server, which has the same version.
        assert bound.specifier.contains(version({"mlflow": "mlflow-skinny"}.get(name, name)))


def test_errors_name_only_extras_that_exist():
    sources = [*(ROOT / "rtdetrv2").rglob("*.py"), *(ROOT / "rtdetrv2_pytorch").rglob("*.py")]
    named = {
        name for path in sources for name in re.findall(r"extra\(\"(\w+)\"\)", path.read_text())
    }
    assert {"onnx", "train"} <= named <= {*PROJECT["optional-dependencies"]}
