"""Files and packages stay small, and packages do not import each other in a cycle."""

import ast
from collections import Counter, defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("rtdetrv2", "rtdetrv2_pytorch", "supervisely_integration")
MAX_LINES = 400
MAX_MODULES = 15  # per package, without those of its sub-packages


def source_files(*suffixes: str) -> list[Path]:
    return [
        path
        for source in SOURCES
        for path in sorted((ROOT / source).rglob("*"))
        if path.suffix in suffixes and "node_modules" not in path.parts
    ]


def test_no_file_is_longer_than_the_limit():
    lengths = {
        path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines())
        for path in source_files(".py", ".js", ".css", ".html")
    }
    assert {path: n for path, n in lengths.items() if n > MAX_LINES} == {}


def test_no_package_has_more_modules_than_the_limit():
    modules = [path for path in source_files(".py") if path.name != "__init__.py"]
    counts = Counter(path.parent.relative_to(ROOT) for path in modules)
    assert {package: n for package, n in counts.items() if n > MAX_MODULES} == {}


def packages_imported_by(path: Path) -> set[Path]:
    """Return the packages whose modules a module imports at its top level."""
    packages = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ImportFrom):
            continue
        base = path.parents[node.level - 1] if node.level else ROOT
        module = base.joinpath(*(node.module or "").split("."))
        for name in node.names:
            if (module / f"{name.name}.py").is_file():
                packages.add(module)  # from package import module
            elif module.with_suffix(".py").is_file():
                packages.add(module.parent)
            elif (module / "__init__.py").is_file():
                packages.add(module)
    return packages


def test_packages_have_no_import_cycle():
    """A package may share modules with its own sub-packages, which are a part of it."""
    graph = defaultdict(set)
    for path in source_files(".py"):
        package = path.parent
        if not path.name.startswith("__"):  # entry points and re-exports
            graph[package] |= {
                imported
                for imported in packages_imported_by(path)
                if package not in (imported, *imported.parents) and imported not in package.parents
            }
    TopologicalSorter(graph).prepare()  # raises CycleError
    engine = ROOT / "rtdetrv2_pytorch" / "src"
    assert engine / "misc" in graph[engine / "nn"]
