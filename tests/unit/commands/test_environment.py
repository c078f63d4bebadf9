"""A Python without the packages gets one sentence; options are checked before slow imports."""

import ast
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "module",
    [
        "rtdetrv2",
        "rtdetrv2_pytorch.tools.train",
        "supervisely_integration.local",
        "supervisely_integration.serve.main",
        "benchmarks",
        "benchmarks.label_radar",
    ],
)
def test_python_without_packages_gets_one_sentence(module):
    command = [sys.executable, "-S", "-m", module, "--help"]  # without site-packages
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert " without torch, click, rich, yaml. Use Python 3.11 or 3.12" in line
    assert line.endswith("then `source .venv/bin/activate`.")


def test_old_python_gets_one_sentence(monkeypatch):
    check = ROOT / "rtdetrv2" / "commands" / "__init__.py"
    for path in (check, ROOT / "rtdetrv2" / "__init__.py", ROOT / "rtdetrv2" / "__main__.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 7))
    monkeypatch.setattr(sys, "version_info", (3, 10, 12))
    with pytest.raises(SystemExit, match=r" is Python 3\.10\. Use Python 3\.11 or 3\.12 with "):
        runpy.run_path(str(check))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "DatasetError: nowhere: no such folder"),
        (
            ["--sample", "--model", "XXL"],
            "ConfigError: --model 'XXL': unknown; use one of RT-DETRv2",
        ),
        (["--app-state", "none.json"], "ConfigError: none.json: not readable"),
        (["-u", "epoches"], "ConfigError: -u epoches: expected key=value"),
        (["--split", "halves"], "ConfigError: --split 'halves': use random:80"),
        (["--port", "USED"], "ConfigError: port "),
    ],
)
def test_local_train_rejects_options_before_slow_imports(tmp_path, arguments, message):
    code = (
        "import sys; from supervisely_integration.local.launcher.cli import main; "
        "code = main(['train', *sys.argv[1:]]); "
        "sys.exit(9 if {'torch', 'supervisely'} & sys.modules.keys() else code)"
    )
    environment = {"PYTHONPATH": str(ROOT)}
    with socket.create_server(("127.0.0.1", 0)) as server:
        used = str(server.getsockname()[1])
        words = [used if word == "USED" else word for word in arguments]
        command = [sys.executable, "-c", code, *words]
        result = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
    assert result.returncode == 1
    assert result.stderr.startswith(message)
    assert list(tmp_path.iterdir()) == []
