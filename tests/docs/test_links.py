"""Links, test names and images of all pages."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
APPS = ROOT / "supervisely_integration"
LISTED = subprocess.run(
    ("git", "ls-files", "*.md"), cwd=ROOT, capture_output=True, text=True, check=True
)
PAGES = {name: (ROOT / name).read_text() for name in LISTED.stdout.splitlines()}


def anchors(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("name", PAGES)
def test_link_targets_exist(name):
    text = PAGES[name]
    links = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'(?:href|src)="([^"]+)"', text)
    broken = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        if "://" not in link and not (
            target.exists() and (not anchor or anchor in anchors(target.read_text()))
        ):
            broken.append(link)
    assert broken == []


def test_test_files_named_in_pages_exist():
    paths = {p for text in PAGES.values() for p in re.findall(r"`(tests/[\w/.]+)`", text)}
    assert len(paths) > 25
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []
    names = {n for text in PAGES.values() for n in re.findall(r"`(test_\w+\.py)`", text)}
    assert sorted(name for name in names if not [*(ROOT / "tests").rglob(name)]) == []


@pytest.mark.parametrize(("app", "parts", "steps"), [("train", 5, 4), ("serve", 6, 2)])
def test_app_page_has_navigation_and_small_described_pictures(app, parts, steps):
    page = PAGES[f"supervisely_integration/{app}/README.md"]
    assert len(re.findall(r'href="#([^"]+)"', page)) == parts
    shown = re.findall(r'<img src="(\.\.[^"]+)" width="\d+" alt="([^"]+)"/>', page)
    assert len(shown) == page.count('<img src="..') == steps
    for address, description in shown:
        assert (APPS / app / address).stat().st_size < 120_000
        assert len(description) > 40
