"""docs/architecture.md describes all packages, with allowed arrows and existing files."""

import re
from pathlib import Path

from tests.architecture.test_layers import ALLOWED, INTEGRATION_ALLOWED, PRODUCT_ALLOWED

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
ENGINE, APPS = ROOT / "rtdetrv2_pytorch", ROOT / "supervisely_integration"


def arrows() -> set[tuple[str, str]]:
    """Return (importing package, imported package) of the drawing."""
    drawing = PAGE.split("```mermaid")[1].split("```")[0]
    chains = [line.split("-->") for line in drawing.splitlines() if "-->" in line]
    return {
        (start.strip(), end.strip())
        for chain in chains
        for start, end in zip(chain, chain[1:], strict=False)
    }


def test_arrows_are_allowed_imports():
    table = {**ALLOWED, **PRODUCT_ALLOWED, **INTEGRATION_ALLOWED}
    above = {*PRODUCT_ALLOWED, *INTEGRATION_ALLOWED}
    assert len(arrows()) > 20
    assert [
        (start, end)
        for start, end in arrows()
        if end not in table[start] and not (start in above and end in ALLOWED)
    ] == []


def test_packages_are_described():
    drawn = {package for arrow in arrows() for package in arrow}
    single_files = {path.stem for path in APPS.glob("*.py")} | {"local.__main__"}
    assert {*PRODUCT_ALLOWED, *INTEGRATION_ALLOWED} - drawn - single_files == {"demo"}
    assert {*ALLOWED} - drawn == {"tools"}
    nested = {path.parent.name for path in (ENGINE / "src").glob("*/*/__init__.py")}
    assert {"augment", "loading"} <= nested
    assert [name for name in nested if name not in PAGE] == []


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
