"""Security rules for all source files."""

import ast
import mmap
import re

import pytest

from supervisely_integration.local.instance import LOOPBACK, LocalInstance
from supervisely_integration.local.launcher.commands.up_command import DEFAULT_PORT
from tests.conftest import ROOT
from tests.security.peak_memory import at_most

REQUIREMENTS = sorted(ROOT.glob("*requirements*.txt"))
INTEGRATION = ROOT / "supervisely_integration"
OURS = [
    *(ROOT / "rtdetrv2_pytorch").rglob("*.py"),
    *(ROOT / "supervisely_integration").rglob("*.py"),
]
# Calls that execute their input.
EXECUTES_INPUT = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load"),
    *("pickle.loads", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "shutil.unpack_archive"),
    *("marshal.loads", "shelve.open", "numpy.load", "np.load", "joblib.load"),
}


@pytest.mark.parametrize("file", REQUIREMENTS, ids=lambda p: p.name)
def test_requirements_are_pinned(file):
    lines = [line.partition("#")[0].strip() for line in file.read_text().splitlines()]
    packages = [line for line in lines if line and not line.startswith("-r ")]
    assert packages
    loose = [p for p in packages if not re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==[\w.+!]+", p)]
    assert loose == []


def test_instance_listens_on_loopback_by_default(tmp_path):
    with LocalInstance(tmp_path) as instance:
        assert instance._socket.getsockname()[0] == LOOPBACK == "127.0.0.1"
    assert DEFAULT_PORT > 1024  # no privileges required


def calls(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_code_does_not_execute_input():
    found = [
        f"{path.name}:{node.lineno} {name}"
        for path in OURS
        for name, node in calls(path)
        if name in EXECUTES_INPUT
        or any(k.arg == "shell" and ast.unparse(k.value) != "False" for k in node.keywords)
        or (name.endswith("torch.load") and "weights_only=True" not in ast.unparse(node))
        or name.endswith((".extractall", ".extract"))
    ]
    assert found == []
    assert len(OURS) > 100


def test_images_are_opened_in_one_place():
    openers = {"Image.open", "cv2.imread", "cv2.imdecode", "sly.image.read", "sly.image.read_bytes"}
    found = {
        path.name: ast.unparse(node)
        for path in OURS
        for name, node in calls(path)
        if name in openers or name.endswith((".imread", ".read_image", ".decode_image"))
    }
    # The demos import nothing of the project. The SDK's own calls use `sdk/images.py`.
    assert found.pop("demo_common.py") == "Image.open(path, formats=_DECODERS)"
    assert found.pop("opening.py") == "Image.open(source, formats=_formats())"
    assert found.pop("degradation.py") == "Image.open(buffer, formats=('JPEG',))"  # its own bytes
    assert found == {}
    assert "read_images_like_the_trainer(" in (INTEGRATION / "sdk" / "inference.py").read_text()


def test_memory_limit_detects_growth():
    size = 64 << 20
    # A mapping: the allocator may have kept as much memory of earlier tests.
    memory = mmap.mmap(-1, size)
    with pytest.raises(AssertionError, match="bytes more"), at_most(8 << 20):
        for place in range(0, size, mmap.PAGESIZE):
            memory[place] = 1
    memory.close()
