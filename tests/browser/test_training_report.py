"""The training report in Chromium: light, dark, on a phone; with screenshots."""

import re

import pytest

from rtdetrv2_pytorch.src.report.training_report import write_report
from supervisely_integration.local.emulator.store import TEAM_ID
from supervisely_integration.local.instance import LocalInstance
from tests.browser.instance_data import EVIL, put_experiment
from tests.conftest import ROOT
from tests.synthetic_runs import make_run

pytestmark = pytest.mark.browser

SHOTS = ROOT / ".test-output" / "report"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A run with HTML in one class name, and a very long class name."""
    folder = tmp_path_factory.mktemp("run") / "cells"
    return write_report(make_run(folder, names=("cell", EVIL, "long_" * 30), images=14))


def open_report(new_page, page_file, width=1280, scheme="light"):
    page = new_page(viewport={"width": width, "height": 860}, color_scheme=scheme)
    page.set_content(page_file.read_text())
    return page


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "dark")])
def test_page_fits_the_window_and_shows_images_and_plots(page_file, new_page, width, scheme):
    page = open_report(new_page, page_file, width, scheme)
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"report_{width}_{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    shown = page.eval_on_selector_all("img", "all => all.map(i => i.naturalWidth)")
    assert len(shown) >= 12
    assert min(shown) > 0
    assert page.locator("svg.plot").count() == 8
    assert page.evaluate("window.hacked") is None
    # Plot text is readable, also on a phone, and contrasts with the panel.
    label = page.locator("svg.plot text").first
    assert label.bounding_box()["height"] >= 8
    colors = page.evaluate(
        "() => [getComputedStyle(document.querySelector('svg.plot text')).fill,"
        " getComputedStyle(document.querySelector('.panel')).backgroundColor]"
    )
    text, card = (sum(map(int, re.findall(r"\d+", color)[:3])) for color in colors)
    assert (text > card) == (scheme == "dark")
    assert abs(text - card) > 200


def test_print_is_dark_on_light_without_overflow(page_file, new_page):
    page = open_report(new_page, page_file, width=794, scheme="dark")  # A4
    page.emulate_media(media="print", color_scheme="dark")
    page.screenshot(path=SHOTS / "report_print.png", full_page=True)
    color = page.evaluate("getComputedStyle(document.body).color")
    assert sum(map(int, re.findall(r"\d+", color)[:3])) < 200
    wide = "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.className)"
    assert page.eval_on_selector_all(".scroll, pre", wide) == []


def test_boxes_overlay_images_and_can_be_hidden(page_file, new_page):
    page = open_report(new_page, page_file)
    shot = page.locator("#images .shot").first
    image, layer = (shot.locator(name).bounding_box() for name in ("img", "svg"))
    assert image == layer
    hit = page.locator("#images g.hit").first
    assert hit.is_visible()
    page.get_by_label("detected", exact=True).uncheck()
    assert not hit.is_visible()
    assert page.locator("#images g.truth").first.is_visible()
    page.get_by_label("detected", exact=True).check()
    assert hit.is_visible()


def test_keyboard_and_screen_reader_navigation(page_file, new_page):
    page = open_report(new_page, page_file)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#curves"
    levels = page.eval_on_selector_all("h1, h2", "all => all.map(h => h.tagName)")
    assert levels[0] == "H1"
    assert levels.count("H1") == 1
    assert page.get_by_role("img", name="Training and validation loss by epoch").count() == 1
    links = page.eval_on_selector_all("nav a", "all => all.map(a => a.getAttribute('href'))")
    assert all(page.locator(link).count() == 1 for link in links)
    assert page.get_by_role("row", name=re.compile("^cell .*"), exact=False).count() >= 1


def test_report_opens_from_the_instance_page(page_file, new_page, tmp_path):
    with LocalInstance(tmp_path / "instance") as instance:
        folder = "/experiments/1_cells/7_RT-DETRv2"
        put_experiment(instance.store, folder)
        page_bytes = page_file.read_bytes()
        instance.store.files.put_path(TEAM_ID, f"{folder}/report.html", page_bytes)
        page = new_page()
        page.goto(instance.page_address)
        page.get_by_role("link", name=re.compile("cells, first try")).click()
        SHOTS.mkdir(parents=True, exist_ok=True)
        with page.context.expect_page() as opened:
            page.get_by_role("link", name="Training report").click()
        page.screenshot(path=SHOTS / "instance.png")
        report = opened.value
        report.wait_for_load_state()
        # The report works without scripts, which are blocked for Team Files.
        assert report.get_by_role("heading", name="Validation images").is_visible()
        sizes = report.eval_on_selector_all("img", "all => all.map(i => i.naturalWidth)")
        assert min(sizes) > 0
        report.get_by_label("detected", exact=True).uncheck()
        assert not report.locator("#images g.hit").first.is_visible()
        page.goto("about:blank")  # before the instance stops
