"""docs/architecture.md: the map has every module, and every place that it names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
ENGINE, APPS = ROOT / "rtdetrv2_pytorch", ROOT / "supervisely_integration"
# Rooms of the instance; what is in them is named after the platform's resources.
ROOMS = ("routes", "storage", "importers", "page")


def modules():
    for package in (ENGINE, APPS):
        for path in package.rglob("*.py"):
            inside = path.relative_to(package).parts
            if "node_modules" not in inside and not path.stem.startswith("__"):
                yield path.stem, inside


def test_every_module_is_on_the_map():
    tree = PAGE.split("```")[1]
    named = set(re.findall(r"\w+", tree))
    assert len(named) > 150
    missing = {
        "/".join(inside)
        for stem, inside in modules()
        if stem not in named and not (inside[0] == "local" and inside[1] in ROOMS)
    }
    assert missing == set()
    assert set(ROOMS) <= named


def test_every_file_of_the_walks_exists():
    files = set(re.findall(r"`([\w/]+\.py)`", PAGE))
    assert len(files) > 30
    homes = (ROOT, ENGINE, ENGINE / "src", APPS, APPS / "demo")
    assert [name for name in files if not any((home / name).is_file() for home in homes)] == []


def test_every_name_in_code_letters_is_one_of_the_code():
    code = "\n".join(path.read_text() for home in (ENGINE, APPS) for path in home.rglob("*.py"))
    names = set(re.findall(r"`([A-Za-z_]\w+)`", PAGE))
    assert {"run_training", "load_model", "open_runtime", "to_predictions", "fit"} <= names
    assert [name for name in names if not re.search(rf"\b{name}\b", code)] == []
