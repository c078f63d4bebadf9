"""The page of an experiment: its commands and Python code run on its files."""

import ast
import html
import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from supervisely_integration.paths import ROOT
from supervisely_integration.sdk.experiment_page import ExperimentPage
from supervisely_integration.serve.command import group

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(experiment):
    """The text of the page, without markup of code."""
    return experiment.text("visualization/template.vue")


@pytest.fixture(scope="module")
def blocks(page):
    """The code after the part of the page that is the SDK's."""
    own = page[page.index('<h2 id="deploy-in-docker"') :]
    found = re.findall(r"<pre[^>]*>(.*?)</pre>", own, re.DOTALL)
    return [html.unescape(re.sub(r"<[^>]+>", "", block)) for block in found]


@pytest.fixture
def folder(experiment, tmp_path, monkeypatch):
    """A working directory with the downloaded experiment and an image."""
    monkeypatch.chdir(tmp_path)
    work_dir = experiment.path.rpartition("/")[2]
    for name in ("checkpoints/best.pth", "export/best.onnx"):
        target = tmp_path / work_dir / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(experiment.store.files.contents(experiment.files[name]), target)
    Image.new("RGB", (90, 70)).save("image.jpg")
    return tmp_path


def commands(blocks):
    """Return the shell commands as lists of words."""
    shell = [block for block in blocks if "import " not in block]
    lines = "".join(shell).replace("\\\n", " ").splitlines()
    assert all("#" not in line for line in lines)
    return [shlex.split(line) for line in lines if line.strip()]


def test_page_offers_what_the_app_can_do(page, blocks):
    assert "tracking" not in page.lower()
    for anchor in re.findall(r"location.pathname}#([\w-]+)", page):
        assert f'id="{anchor}"' in page
    words = commands(blocks)
    (build,) = (command for command in words if command[:2] == ["docker", "build"])
    repository = build[-1]
    assert (ROOT / build[3].removeprefix(f"{repository}/")).is_file()
    image = build[build.index("-t") + 1]
    runs = [command for command in words if command[:2] == ["docker", "run"]]
    assert [command[command.index(image) + 1] for command in runs] == ["deploy", "predict"]
    assert ["make", "-C", repository, "install"] in words
    for command in runs:  # the options exist
        name, *options = command[command.index(image) + 1 :]
        assert group.get_command(None, name).make_context(name, options)


def test_predict_and_deploy_commands_of_the_page_work(blocks, folder, capsys):
    module = ["python", "-m", "supervisely_integration.serve.main"]
    local = [command[3:] for command in commands(blocks) if command[:3] == module]
    assert [command[0] for command in local] == ["predict", "predict", "deploy"]
    for command in local:
        model = command[command.index("--model") + 1]
        assert (folder / model).is_file()
        if command[0] == "predict":
            assert group(command) == 0, capsys.readouterr()
            assert "image.jpg: " in capsys.readouterr().out
    assert (folder / "predictions" / "image.jpg").is_file()
    assert group.get_command(None, "deploy").make_context("deploy", local[-1][1:])


def test_python_code_of_the_page_works(blocks, folder, capsys):
    python = [block for block in blocks if "import " in block]
    assert len(python) == 2
    for code in python:
        ast.parse(code)
    names = {}
    exec(python[1].replace('"auto"', "0.0"), names)
    assert len(names["detections"]["boxes"]) > 0
    assert len(capsys.readouterr().out.splitlines()) == len(names["detections"]["boxes"])


def test_page_says_why_its_metrics_differ_from_the_training_report(page, experiment):
    metrics = experiment.info["evaluation_metrics"]
    note = page.index("means over IoU thresholds from 0.5 to 0.95")
    for name in ("f1", "precision", "f1_optimal_conf"):
        assert page.index(f"{metrics[name]:.4f}") < note
    assert note < page.index("Training Plots</h2>")


def test_template_of_the_sdk_has_the_replaced_sections():
    """Otherwise the page would end with the SDK's text."""
    text = (ROOT / "supervisely_integration" / "sdk" / "experiment_page.md.jinja").read_text()
    page = ExperimentPage.__new__(ExperimentPage)
    whole = Path(page.template_path).with_name("experiment.html.jinja").read_text()
    assert whole.endswith(text)
    assert whole.count("## Deploy in Docker") == 1
    examples = re.findall(r"predict\(\s*input=(.*)", whole)
    assert len(examples) == 3
    assert all(each.startswith('"image.jpg"') for each in examples)
