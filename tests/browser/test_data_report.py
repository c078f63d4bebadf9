"""The data doctor's page in a real Chromium."""

import re

import pytest

from rtdetrv2.commands import doctor
from tests.browser.instance_data import EVIL
from tests.damaged_datasets import CocoFolder, encoded

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """The report of a data set with unusual names and many findings."""
    folder = tmp_path_factory.mktemp("report")
    data = CocoFolder(folder / "data")
    for split in ("train", "val"):
        data.box(split, (3, 3, 9, 9), category=data.add_class(split, EVIL))
    for i in range(150):
        data.add("train", f"{'long_' * 30}{i}.png", b"")
    for i in range(10):
        data.add("train", f"{i}.jpg", encoded("PNG", 50 + i), bbox=(40, 30, 90, 90))
    data.add("train", EVIL.replace("/", ""), b"")
    data.write()
    options = ["--data", str(data.root), "-o", str(folder), "--no-cache"]
    assert doctor.main(options) == 0
    return folder / "data_report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_page_fits_shows_its_images_and_executes_no_input(page_file, new_page, width, scheme):
    page = new_page(viewport={"width": width, "height": 740}, color_scheme=scheme)
    page.set_content(page_file.read_text())
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    shown = page.eval_on_selector_all("img", "all => all.map(i => i.naturalWidth)")
    assert len(shown) == 16
    assert min(shown) > 0
    assert page.evaluate("window.hacked") is None
    assert page.locator("img:not([src^='data:'])").count() == 0
    assert page.get_by_text("and 51 more, all in data_report.json").count() == 1
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == (scheme == "dark")
