"""Imports point down: the table says which layer may import which."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "rtdetrv2_pytorch"

BELOW_CORE = {"structures", "misc", "nn", "zoo", "data", "optim"}
ALLOWED = {
    "structures": set(),
    "misc": set(),
    "nn": {"structures", "misc"},
    "zoo": {"structures", "misc", "nn"},
    "data": {"structures", "misc"},
    "optim": {"structures", "misc"},
    "core": BELOW_CORE,
    "robustness": {"structures", "misc", "data", "optim"},
    "report": {"structures", "misc", "data", "doctor", "core", "solver"},
    "solver": {"structures", "misc", "nn", "data", "optim", "core", "robustness", "report"},
    "deploy": {"structures", "misc", "data", "core"},
    "doctor": {"misc", "data"},
    "tools": BELOW_CORE | {"core", "robustness", "solver", "deploy", "doctor", "report"},
}


def layer_of(path: Path) -> str:
    parts = path.relative_to(ENGINE).parts
    return parts[0] if parts[0] != "src" else parts[1].removesuffix(".py")


def imports_of(path: Path):
    """Yields (absolute module as path parts below the engine, or name of a foreign module)."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield tuple(name.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            yield (*base, *(node.module.split(".") if node.module else ()))


def modules():
    return sorted(p for p in ENGINE.rglob("*.py") if p.parent != ENGINE)


def test_every_import_points_down():
    breaches = []
    for path in modules():
        layer = layer_of(path)
        if layer == "__init__":
            continue
        for target in imports_of(path):
            if target[:2] != ("rtdetrv2_pytorch", "src") or len(target) < 3:
                continue
            if target[2] != layer and target[2] not in ALLOWED[layer]:
                breaches.append(f"{path.relative_to(ROOT)} imports {'.'.join(target)}")
    assert not breaches, "\n".join(breaches)


def test_the_table_knows_every_layer():
    assert {layer_of(p) for p in modules()} - {"__init__"} == set(ALLOWED)


def test_the_engine_imports_relatively_and_no_platform():
    wrong = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [n.name for n in node.names]
            else:
                continue
            wrong += [
                f"{path.relative_to(ROOT)}: {name}"
                for name in names
                if name.split(".")[0] in ("rtdetrv2_pytorch", "supervisely")
            ]
    assert not wrong, "\n".join(wrong)


def test_the_check_itself_finds_a_breach(tmp_path, monkeypatch):
    bad = tmp_path / "rtdetrv2_pytorch" / "src" / "nn" / "bad.py"
    bad.parent.mkdir(parents=True)
    bad.write_text("from ..solver import DetSolver\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "ENGINE", tmp_path / "rtdetrv2_pytorch")
    assert list(imports_of(bad)) == [("rtdetrv2_pytorch", "src", "solver")]
    with pytest.raises(AssertionError, match=r"bad\.py imports rtdetrv2_pytorch\.src\.solver"):
        test_every_import_points_down()
