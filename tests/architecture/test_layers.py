"""Imports follow the table of layers."""

import ast
from collections.abc import Sequence
from graphlib import TopologicalSorter
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
    "timing": {"misc"},
    "core": BELOW_CORE | {"timing"},
    "interchange": {"misc", "nn", "core"},
    "robustness": {"structures", "misc", "data", "optim"},
    "report": {"structures", "misc", "data", "doctor", "core", "solver"},
    "solver": {
        *("structures", "misc", "nn", "data", "optim", "core", "interchange", "robustness"),
        "timing",
    },
    "trackers": {"misc", "core", "solver"},
    "deploy": {"structures", "misc", "data", "core", "interchange"},
    "doctor": {"misc", "data"},
    "tools": set(),
}

PRODUCT = ROOT / "rtdetrv2"
PRODUCT_ALLOWED = {
    "terminal": {"training"},
    "training": set(),
    "analysis": {"training"},
    "api": {"analysis", "terminal", "training"},
    "reference": {"api", "analysis", "terminal", "training"},
    "commands": {"analysis", "api", "reference", "terminal", "training"},
    "cli": {"commands", "terminal"},
}

INTEGRATION = ROOT / "supervisely_integration"
INTEGRATION_ALLOWED = {
    "paths": set(),
    "models": {"paths"},
    "checkpoint_export": set(),
    "task_status": set(),
    "access": set(),
    "settings": set(),
    "sdk": {"paths", "access", "settings", "task_status"},
    "gui": {"paths", "access"},
    "serve": {"paths", "models", "checkpoint_export", "access", "sdk", "gui"},
    "train": {
        "paths",
        "models",
        "checkpoint_export",
        "task_status",
        "settings",
        "sdk",
        "gui",
        "serve",
    },
    "demo": set(),
    "local.emulator": {"paths"},
    "local.page": {"local.emulator"},
    "local.instance": {"local.emulator", "local.page"},
    "local.importers": {"local.emulator"},
    "local.launcher": {
        *("paths", "models", "task_status", "settings", "gui", "train"),
        *("local.emulator", "local.importers", "local.instance"),
    },
    "local.__main__": {"local.launcher"},
}


# Packages whose subpackages use other modules of the package, which do not import the subpackage.
WITH_DEPENDENT_PARTS = {
    ("rtdetrv2_pytorch.src.data", "images"),
    ("rtdetrv2_pytorch.src.data", "readers"),
    ("supervisely_integration.local", "launcher"),
    ("supervisely_integration.local.emulator", "routes"),
    ("supervisely_integration.local.emulator", "storage"),  # only to name a type
    ("supervisely_integration.train", "plan"),
}


def layer_of(path: Path) -> str:
    parts = path.relative_to(ENGINE).parts
    return parts[0] if parts[0] != "src" else parts[1].removesuffix(".py")


def imports_of(path: Path, *, with_names: bool = False):
    """Yield absolute modules as path parts; `with_names` adds the imported name as last part."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield tuple(name.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            for name in node.names if with_names else node.names[:1]:
                yield (*module, name.name) if with_names else module


def modules():
    return sorted(p for p in ENGINE.rglob("*.py") if p.parent != ENGINE)


def test_imports_follow_table():
    violations = []
    for path in modules():
        layer = layer_of(path)
        if layer == "__init__":
            continue
        for target in imports_of(path):
            if target[:2] != ("rtdetrv2_pytorch", "src") or len(target) < 3:
                continue
            if target[2] != layer and target[2] not in ALLOWED[layer]:
                violations.append(f"{path.relative_to(ROOT)} imports {'.'.join(target)}")
    assert not violations, "\n".join(violations)


def test_table_lists_all_layers():
    assert {layer_of(p) for p in modules()} - {"__init__"} == set(ALLOWED)


def integration_layer(parts: Sequence[str]) -> str:
    """Return the key of `INTEGRATION_ALLOWED` for a module path in supervisely_integration."""
    names = [part.removesuffix(".py") for part in parts]
    return ".".join(names[:2]) if names[0] == "local" else names[0]


def integration_modules():
    paths = sorted(INTEGRATION.rglob("*.py"))
    skipped = (INTEGRATION / "__init__.py", INTEGRATION / "local" / "__init__.py")
    return [path for path in paths if path not in skipped and "node_modules" not in path.parts]


def integration_imports(path: Path):
    """Yield the layers of supervisely_integration that a module imports."""
    for target in imports_of(path, with_names=True):
        if target[0] == "supervisely_integration" and len(target) > 1:
            yield integration_layer(target[1:])


def test_integration_imports_follow_the_table():
    violations = []
    for path in integration_modules():
        layer = integration_layer(path.relative_to(INTEGRATION).parts)
        for target in integration_imports(path):
            if target != layer and target not in INTEGRATION_ALLOWED[layer]:
                violations.append(f"{path.relative_to(ROOT)} imports {target}")
    assert not violations, "\n".join(violations)


def test_integration_table_lists_all_layers_without_cycle():
    layers = {integration_layer(p.relative_to(INTEGRATION).parts) for p in integration_modules()}
    assert layers == set(INTEGRATION_ALLOWED)
    TopologicalSorter(INTEGRATION_ALLOWED).prepare()  # raises CycleError


def test_product_imports_follow_the_table():
    violations = []
    for path in sorted(PRODUCT.rglob("*.py")):
        layer = path.relative_to(PRODUCT).parts[0].removesuffix(".py")
        for target in imports_of(path, with_names=True):
            if layer.startswith("__") or target[0] not in ("rtdetrv2", "supervisely_integration"):
                continue
            if target[0] != "rtdetrv2" or target[1] not in {layer, *PRODUCT_ALLOWED[layer]}:
                violations.append(f"{path.relative_to(ROOT)} imports {'.'.join(target)}")
    assert not violations, "\n".join(violations)


def test_packages_import_each_other_in_one_direction():
    edges = set()
    for path in (p for root in (ENGINE, PRODUCT, INTEGRATION) for p in root.rglob("*.py")):
        package = path.relative_to(ROOT).parts[:-1]
        for target in imports_of(path, with_names=True):
            if "node_modules" not in package and target[0] == package[0]:
                while not ROOT.joinpath(*target).is_dir():
                    target = target[:-1]
                edges.add((package, target))
    mutual = {(a, b) for a, b in edges if (b, a) in edges and a < b}
    assert {(".".join(a), ".".join(b[len(a) :])) for a, b in mutual} == WITH_DEPENDENT_PARTS


def test_training_does_not_use_the_console():
    paths = sorted((PRODUCT / "training").glob("*.py"))
    imports = {(path.name, target[0]) for path in paths for target in imports_of(path)}
    assert ("run.py", "rtdetrv2_pytorch") in imports
    assert [name for name, module in imports if module in ("click", "rich")] == []


def test_engine_uses_relative_imports_and_no_supervisely():
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
                if name.split(".")[0] in ("rtdetrv2", "rtdetrv2_pytorch", "supervisely")
                and layer_of(path) != "tools"  # the entries for people who switch
            ]
    assert not wrong, "\n".join(wrong)


def test_check_detects_violation(tmp_path, monkeypatch):
    bad = tmp_path / "rtdetrv2_pytorch" / "src" / "nn" / "bad.py"
    bad.parent.mkdir(parents=True)
    bad.write_text("from ..solver import DetSolver\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "ENGINE", tmp_path / "rtdetrv2_pytorch")
    assert list(imports_of(bad)) == [("rtdetrv2_pytorch", "src", "solver")]
    with pytest.raises(AssertionError, match=r"bad\.py imports rtdetrv2_pytorch\.src\.solver"):
        test_imports_follow_table()
