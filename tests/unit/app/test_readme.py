"""The app's README: what it shows runs."""

import re

import torch

from rtdetrv2_pytorch.src.solver import DetSolver
from supervisely_integration import paths
from supervisely_integration.train.run_config import portable_config, write_config
from tests.tiny import tiny_config

README = (paths.TRAIN / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs_on_the_files_of_a_training(digits, tmp_path, monkeypatch):
    cfg = tiny_config(tmp_path, digits, epoches=1)
    DetSolver(cfg).fit()
    write_config(portable_config(cfg.yaml_cfg), tmp_path / "model_config.yml")
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    (found,) = names["detections"]
    assert names["images"].shape == (1, 3, 64, 96)
    assert found["boxes"].shape == (20, 4)
    assert names["names"] == [str(digit) for digit in range(10)]
    assert bool(torch.isfinite(found["boxes"]).all())


def test_links_within_the_page_lead_somewhere():
    titles = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    }
    links = re.findall(r'href="#([^"]+)"', README)
    assert len(links) == 5
    assert set(links) <= titles


def test_the_serving_page_says_what_there_is():
    page = (paths.SERVE / "README.md").read_text(encoding="utf-8")
    titles = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    }
    links = re.findall(r'href="#([^"]+)"', page)
    assert len(links) == 6
    assert set(links) <= titles
    for name in re.findall(r"\]\(([\w.]+\.yaml)\)", page):
        assert (paths.SERVE / name).is_file()
