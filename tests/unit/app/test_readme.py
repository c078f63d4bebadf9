"""The app's README: what it shows runs."""

import re

import pytest
import torch
from PIL import Image

from rtdetrv2_pytorch.src.solver import DetSolver
from supervisely_integration import paths
from tests.tiny import tiny_config

README = (paths.TRAIN / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs_on_the_files_of_a_training(digits, tmp_path, monkeypatch, capsys):
    DetSolver(tiny_config(tmp_path, digits, epoches=1)).fit()
    Image.open(sorted((digits / "val").iterdir())[0]).save(tmp_path / "image.jpg")
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert 'confidence_threshold="auto"' in code
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code.replace('"auto"', "0.0"), names)  # one epoch finds nothing that is sure
    found = names["found"]
    assert found["boxes"].shape == (20, 4)
    assert bool((found["boxes"] <= torch.tensor([320, 256, 320, 256])).all())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [str(label) for label in found["labels"].tolist()]


@pytest.mark.parametrize(("app", "number"), [(paths.TRAIN, 5), (paths.SERVE, 6)])
def test_a_page_begins_with_links_to_its_parts(app, number):
    """Where they lead is tested with the links of all pages, in tests/docs."""
    page = (app / "README.md").read_text(encoding="utf-8")
    assert len(re.findall(r'href="#([^"]+)"', page)) == number


@pytest.mark.parametrize(("app", "number"), [(paths.TRAIN, 4), (paths.SERVE, 2)])
def test_the_steps_are_shown_in_small_pictures_that_are_described(app, number):
    page = (app / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r'<img src="(\.\.[^"]+)" width="\d+" alt="([^"]+)"/>', page)
    assert len(shown) == number
    assert page.count('<img src="..') == number
    for address, description in shown:
        assert (app / address).stat().st_size < 120_000
        assert len(description) > 40
