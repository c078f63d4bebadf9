"""Python examples of the documentation run on a trained checkpoint."""

import html
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from rtdetrv2 import RTDETR
from rtdetrv2_pytorch.src.report.training_report import write_report_of
from rtdetrv2_pytorch.src.solver import DetSolver
from tests.tiny import tiny_config, tiny_file

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checkpoint(digits, tmp_path_factory) -> Path:
    """The best checkpoint of one epoch."""
    config = tiny_config(tmp_path_factory.mktemp("trained"), digits, epoches=1, report=True)
    result = DetSolver(config).fit()
    assert write_report_of(config, result)
    return result.checkpoints["best"]


@pytest.fixture
def folder(checkpoint, digits, tmp_path, monkeypatch) -> Path:
    """A working directory with best.pth and image.jpg."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(checkpoint, "best.pth")
    Image.open(sorted((digits / "val").iterdir())[0]).save("image.jpg")
    return tmp_path


def example(page: str) -> str:
    """Return the only Python block of a page."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return code


def report_example(checkpoint: Path) -> str:
    """Return the only Python block of a report."""
    blocks = re.findall(r"<pre>(.*?)</pre>", checkpoint.with_name("report.html").read_text(), re.S)
    (code,) = (html.unescape(block) for block in blocks if "import" in block)
    return code


@pytest.mark.parametrize("page", ["supervisely_integration/train/README.md", "report"])
def test_prediction_example_prints_all_detections(page, folder, checkpoint, capsys):
    code = report_example(checkpoint) if page == "report" else example(page)
    code = code.replace('"best.onnx"', '"best.pth"')
    assert 'confidence_threshold="auto"' in code
    names = {}
    exec(code.replace('"auto"', "0.0"), names)  # scores are low after one epoch
    detections = names["detections"]
    assert detections["boxes"].shape == (20, 4)
    assert bool((detections["boxes"] <= torch.tensor([320, 256, 320, 256])).all())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        str(label) for label in detections["labels"].tolist()
    ]


def test_readme_example_prints_all_detections(folder, capsys):
    code = example("README.md").replace('"best.onnx"', '"best.pth"')
    assert 'score="auto"' in code
    names = {}
    exec(code.replace('"auto"', "0.0"), names)
    detections = names["detections"]
    assert detections.boxes.shape == (20, 4)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == detections.names


def test_training_example_prints_ap50_and_checkpoint(folder, digits, capsys):
    tiny_file(folder / "my.yml", folder / "output", digits)
    code = example("docs/command_line.md")
    assert "epoches=20" in code
    names = {}
    exec(code.replace("epoches=20", "epoches=1"), names)
    ap50, best = capsys.readouterr().out.split(maxsplit=1)
    assert float(ap50) == names["result"].best.stats["AP50"]
    assert Path(best.strip()).is_file()
    assert not names["model"].training


def test_example_for_transformers_returns_the_same_detections(folder):
    names = {}
    exec(example("docs/switching.md"), names)
    again = names["model"].predict("image.jpg", score=0.0)
    before = RTDETR("best.pth").predict("image.jpg", score=0.0)
    assert len(again) == 20
    torch.testing.assert_close(again.boxes, before.boxes)


def test_example_of_trackers_trains_and_reports(folder, digits):
    cfg = tiny_config(folder / "run", digits, epoches=1, report=True)
    names = {"cfg": cfg}
    exec(example("docs/trackers.md"), names)
    assert names["result"].best.stats["AP"] >= 0
    assert (folder / "run" / "report.html").is_file()


def test_example_of_python_trains_predicts_and_exports(folder, digits):
    tiny_file(folder / "my.yml", folder / "output", digits)
    Path("my_folder").symlink_to(digits)
    code = example("docs/python.md")
    for ours, tiny in {
        'RTDETR("RT-DETRv2-S")': 'RTDETR("my.yml", weights=None, device="cpu")',
        "epochs=20": "epochs=1",
    }.items():
        assert code.count(ours) == 1
        code = code.replace(ours, tiny)
    names = {}
    exec(code, names)
    assert Image.open("detections.jpg").size == Image.open("image.jpg").size
    assert names["result"].best.with_suffix(".onnx").is_file()
