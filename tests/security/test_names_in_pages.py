"""Names of users with HTML, scripts and Vue templates are text on every page."""

import functools
import http.server
import json
import threading

import pytest

from rtdetrv2_pytorch.src.report.training_report import write_report
from supervisely_integration.gui.libraries import PACKAGES, SCRIPTS, WEB, missing_libraries
from tests.browser.conftest import chromium, complaints, new_page  # noqa: F401 (fixtures)
from tests.sdk import import_sdk
from tests.synthetic_runs import make_run

import_sdk()

NAMES = {
    "template": "{{constructor.constructor('window.hacked = 1')()}}",
    "image": "<img src=x onerror='window.hacked = 2'>",
    "script": "</script><script>window.hacked = 3</script>",
    "frame": "<iframe srcdoc='<script>parent.hacked = 4</script>'></iframe>",
    "drawing": "<svg onload='window.hacked = 5'></svg>",
    "comment": "<!--x-->",
}
ALL = "".join(NAMES.values())
TEMPLATE = '<span v-markup="{0}"></span><sly-html-compiler :template="{0}"></sly-html-compiler>'

SHOWN = "#sly-app > div > span"


def is_safe(page) -> bool:
    foreign = page.locator("img[src=x], iframe, svg[onload], a[href^='javascript'], [onclick]")
    return page.evaluate("window.hacked") is None and foreign.count() == 0


@pytest.fixture(scope="module")
def web():
    """The files of the apps' page."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            """Do not log requests."""

    handler = functools.partial(Quiet, directory=str(WEB))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def show(web, new_page):  # noqa: F811
    """Show a text in the SDK's formatted text and in a table cell, without the page's policy."""
    if missing_libraries():
        pytest.skip("no page libraries: make page")

    def open_with(text):
        def answer(route):
            name = route.request.url.removeprefix(f"{web}/packages/")
            route.fulfill(path=PACKAGES / name)

        page = new_page()
        page.route(f"{web}/packages/**", answer)
        page.add_init_script(f"window.given = {json.dumps(text)}")
        # The text is a value of `data`, as in the app, and not a part of the template.
        scripts = "".join(f'<script src="packages/{name}"></script>' for name in SCRIPTS)
        html = (
            f'<body>{scripts}<div id="sly-app" hidden><holder>'
            f'<template v-slot="{{ text }}"><div>{TEMPLATE.format("text")}</div></template>'
            "</holder></div><script>Vue.component('holder', { render() "
            "{ return this.$scopedSlots.default({ text: window.given }); } })</script>"
            '<script src="main.js" type="module"></script>'
        )
        page.route(f"{web}/", lambda route: route.fulfill(body=html, content_type="text/html"))
        page.goto(f"{web}/")
        page.locator(SHOWN).nth(1).wait_for(state="attached")
        return page

    return open_with


@pytest.mark.browser
@pytest.mark.parametrize("name", [*NAMES.values(), ALL], ids=[*NAMES, "all"])
def test_app_page_shows_names_as_text(show, name):
    page = show(name)
    assert page.locator(SHOWN).all_text_contents() == [name, name]
    assert is_safe(page)


@pytest.mark.browser
def test_app_page_keeps_formatting_and_own_links_only(show):
    page = show(
        "<b class='x' onclick='window.hacked = 6' style='color: red; position: fixed'>bold</b>"
        "<a href='javascript:window.hacked = 7'>1</a><a href='//evil.example'>2</a>"
        "<a href='/projects/1'>3</a><a href='https://docs.supervisely.com/a'>4</a>"
    )
    first = page.locator(SHOWN).first
    assert first.inner_html() == (
        '<b class="x" style="color: red;">bold</b><a>1</a><a>2</a>'
        '<a href="/projects/1">3</a><a href="https://docs.supervisely.com/a">4</a>'
    )
    assert is_safe(page)


def test_app_page_contains_no_raw_html(monkeypatch):
    from supervisely.app.widgets import Container, Text
    from supervisely.app.widgets_context import JinjaWidgets

    from supervisely_integration.gui.app_page import _render_page

    if missing_libraries():
        pytest.skip("no page libraries: make page")
    layout = Container([Text(ALL)])
    monkeypatch.setitem(JinjaWidgets().context, "__app_main_layout__", layout)
    page = _render_page({}).body.decode()
    assert "v-markup=" in page
    assert "v-html" not in page
    assert "hacked" not in page  # the text is data, not a part of the template


@pytest.mark.browser
def test_training_report_shows_names_as_text(new_page, tmp_path):  # noqa: F811
    run = make_run(tmp_path / "run", names=(*NAMES.values(), "cell"))
    text = write_report(run).read_text()
    page = new_page(bypass_csp=True)
    page.set_content(text)
    for name in NAMES.values():
        assert page.get_by_text(name, exact=True).count() > 0
    assert is_safe(page)
