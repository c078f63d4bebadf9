"""Imports have no side effects."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SCRIPT = """
import importlib, os, pkgutil, random, sys, threading
import faster_coco_eval, filelock, numpy, PIL.Image, pydantic, scipy.optimize, sklearn.datasets
import torch, torch.utils.tensorboard, torchvision.transforms.v2, yaml  # may use random numbers
before = (random.getstate(), torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist())
handlers, threads = list(__import__("logging").root.handlers), threading.active_count()
import rtdetrv2, rtdetrv2_pytorch
for package in (rtdetrv2, rtdetrv2_pytorch):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
after = (random.getstate(), torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist())
assert before == after, "an import uses random numbers"
assert handlers == __import__("logging").root.handlers, "an import configures logging"
assert threads == threading.active_count(), "an import starts a thread"
assert "supervisely" not in sys.modules, "the engine imports the SDK"
assert not os.listdir("."), f"an import writes files: {os.listdir('.')}"
"""


def test_imports_have_no_side_effects(tmp_path):
    result = subprocess.run(
        [sys.executable, "-W", "error:::rtdetrv2_pytorch", "-c", SCRIPT],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path / "no-home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""


def test_help_and_invalid_options_do_not_import_torch():
    names = (
        "benchmark",
        "config",
        "doctor",
        "export",
        "export_onnx",
        "export_trt",
        "profile",
        "report",
        "train",
        "val",
    )
    modules = ["rtdetrv2.cli", *(f"rtdetrv2.commands.{name}" for name in names)]
    launcher = "supervisely_integration.local.launcher"
    modules.append(f"{launcher}.cli")
    for name in ("up", "import", "train", "serve", "ls", "get", "rm"):
        modules.append(f"{launcher}.commands.{name}_command")
    slow = "[name for name in ('torch', 'supervisely') if name in sys.modules]"
    script = f"import sys, {', '.join(modules)}; print({slow})"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_emulator_and_page_do_not_import_torch():
    script = (
        "import pkgutil, importlib, sys\n"
        "from supervisely_integration.local import emulator, instance, page\n"
        "for package in (emulator, page):\n"
        "    for module in pkgutil.walk_packages(package.__path__, f'{package.__name__}.'):\n"
        "        importlib.import_module(module.name)\n"
        "print([name for name in ('torch', 'supervisely') if name in sys.modules])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"
