"""README: the numbers of its model table, and its example in Python."""

import json
import re
from pathlib import Path

from rtdetrv2_pytorch.src.solver import DetSolver
from tests.tiny import tiny_config, tiny_file

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
MODELS = json.loads((ROOT / "tests" / "golden" / "models.json").read_text())
PUBLISHED = json.loads((ROOT / "tests" / "golden" / "published_models.json").read_text())


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
