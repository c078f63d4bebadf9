"""What README says exists: commands, make verbs, files, and the numbers of its model table."""

import json
import re
import shlex
from pathlib import Path

import pytest

from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.tools import export_onnx, export_trt
from rtdetrv2_pytorch.tools.train import parse_arguments
from tests.tiny import tiny_config, tiny_file

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
MODELS = json.loads((ROOT / "tests" / "golden" / "models.json").read_text())
PUBLISHED = json.loads((ROOT / "tests" / "golden" / "published_models.json").read_text())
TRAIN = "-m rtdetrv2_pytorch.tools.train"


@pytest.mark.parametrize("line", [line for line in README.splitlines() if TRAIN in line])
def test_commands_are_understood(line):
    command = line.split("#")[0]
    arguments = parse_arguments(shlex.split(command.split(TRAIN)[1]))
    assert arguments.config or arguments.data or arguments.resume


@pytest.mark.parametrize("tool", [export_onnx, export_trt])
def test_exports_are_understood(tool):
    name = f"-m {tool.__name__} "
    lines = [line for line in README.splitlines() if name in line]
    lines += [line for line in tool._EXAMPLES.splitlines() if name in line]
    assert len(lines) >= 3
    for line in lines:
        assert tool.parse_arguments(shlex.split(line.split(name)[1])).resume


def test_verbs_of_make_exist():
    verbs = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))
    assert named
    assert named <= verbs


def test_linked_files_exist():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link.split("#")[0]).exists()] == []


def test_the_model_table_has_the_published_numbers():
    rows = re.findall(r"^\| (.+?) \| `(.+?)\.yml` \| (.+?) \|$", README, re.MULTILINE)
    assert len(rows) == 12
    for _, file, numbers in rows:
        ap, _, fps, parameters = (cell.strip() for cell in numbers.split("|"))
        published = PUBLISHED["checkpoints"][file]
        assert float(ap) == published["ap"], file
        assert fps == str(published.get("fps_t4", "")), file
        assert parameters == f"{MODELS[file]['params_total'] / 1e6:.1f} M", file


def test_the_python_example_trains_and_prints_what_it_found(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first = tiny_config(tmp_path / "first", digits, epoches=1)
    DetSolver(first).fit().checkpoints["best"].rename("best.pth")
    tiny_file(tmp_path / "my.yml", tmp_path / "output", digits)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert "epoches=20" in code
    names = {}
    exec(code.replace("epoches=20", "epoches=1"), names)
    ap50, best = capsys.readouterr().out.split(maxsplit=1)
    assert float(ap50) == names["result"].best.stats["AP50"]
    assert Path(best.strip()).is_file()
    assert not names["model"].training
