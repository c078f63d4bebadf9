"""docs/architecture.md describes all packages and names existing files."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
ENGINE, APPS = ROOT / "rtdetrv2_pytorch", ROOT / "supervisely_integration"


def test_packages_are_described():
    packages = {
        path.parent.name for path in (*ENGINE.rglob("__init__.py"), *APPS.rglob("__init__.py"))
    }
    packages -= {ENGINE.name, APPS.name, "src"}
    assert {"solver", "data", "deploy", "train", "local"} <= packages
    assert packages - set(re.findall(r"\w+", PAGE)) == set()


def test_named_files_exist():
    files = set(re.findall(r"`([\w/]+\.py)`", PAGE))
    assert len(files) > 15
    roots = (ROOT, ENGINE, ENGINE / "src", APPS, APPS / "demo")
    assert sorted(name for name in files if not any((r / name).is_file() for r in roots)) == []


def test_names_in_code_font_exist():
    code = "\n".join(path.read_text() for root in (ENGINE, APPS) for path in root.rglob("*.py"))
    names = set(re.findall(r"`([A-Za-z_]\w+)`", PAGE))
    assert {"run_training", "open_runtime", "fit"} <= names
    assert [name for name in names if not re.search(rf"\b{name}\b", code)] == []
