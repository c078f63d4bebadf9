"""The instance's page in a real Chromium."""

import re

import httpx
import pytest

from supervisely_integration.local.instance import LocalInstance
from tests.browser.instance_data import (
    EVIL,
    SIZE,
    fill_project,
    put_experiment,
    start_task,
)

sync_api = pytest.importorskip("playwright.sync_api", reason="no Chromium driver: playwright")
expect = sync_api.expect
pytestmark = pytest.mark.browser

TITLES = {
    "#/": "Overview",
    "#/projects": "Projects",
    "#/projects/1": "a_very_long_name_",
    "#/tasks": "Tasks",
    "#/experiments": "Experiments",
}


@pytest.fixture
def instance(tmp_path):
    with LocalInstance(tmp_path / "instance") as running:
        yield running


@pytest.fixture
def open_page(instance, new_page):
    """Open a view with the current data of the instance."""

    def open_view(path="#/", **options):
        page = new_page(**options)
        page.goto(instance.page_address)  # the redirect drops the fragment of the address
        if path != "#/":
            page.goto(f"{instance.address}/{path}")
        return page

    return open_view


def fits(page) -> bool:
    """Return whether the page does not scroll horizontally."""
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def has_no_js_values(page) -> bool:
    """Return whether the text contains no JavaScript value such as undefined."""
    words = re.findall(r"\w+|\[object \w+\]", page.locator("body").inner_text())
    return not {"false", "true", "undefined", "null", "NaN"} & set(words)


def loaded(page, selector: str) -> bool:
    """Return whether all images that match are loaded."""
    page.wait_for_function(
        "s => { const all = [...document.querySelectorAll(s)];"
        " return all.length && all.every(i => i.complete) }",
        arg=selector,
    )
    return page.eval_on_selector_all(selector, "all => all.every(i => i.naturalWidth > 0)")


def test_page_address_opens_the_empty_overview(instance, open_page):
    page = open_page()
    assert page.url.rstrip("/") == instance.address
    expect(page.get_by_text("No projects yet")).to_be_visible()
    expect(
        page.get_by_text("python -m supervisely_integration.local import FOLDER")
    ).to_be_visible()
    expect(page.get_by_text("No tasks yet")).to_be_visible()
    expect(page.get_by_text("No experiments yet")).to_be_visible()
    assert has_no_js_values(page)


def test_without_token_only_the_instructions_are_served(instance, new_page, complaints):
    complaints.expect("401")  # Chromium reports it as an error
    page = new_page()
    answer = page.goto(f"{instance.address}/")
    assert answer.status == 401
    expect(page.get_by_text("?token=")).to_be_visible()
    for path in ("page/page.js", "page/api/live", "page/api/projects", "page/thumbnails/1"):
        assert httpx.get(f"{instance.address}/{path}").status_code == 401


def test_project_datasets_and_image(instance, open_page):
    page = open_page()
    fill_project(instance.store, "cells", images=3)
    card = page.get_by_role("link", name=re.compile("cells"))
    expect(card).to_contain_text("3 images in 2 datasets")  # without a reload
    assert loaded(page, ".covers img")
    card.click()
    expect(page.get_by_role("heading", name="cells")).to_be_visible()
    expect(page.get_by_text("3 images, 9 objects")).to_be_visible()
    assert has_no_js_values(page)
    page.get_by_role("link", name="train/night 1").click()
    expect(page.locator(".picture")).to_have_count(1)
    page.get_by_role("link", name="all 3").click()
    expect(page.locator(".picture")).to_have_count(3)
    assert loaded(page, ".picture img")

    page.locator(".picture").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="image 000.png")).to_be_visible()
    assert loaded(page, ".canvas img")
    drawn = dialog.locator("svg .shape")
    expect(drawn).to_have_count(2)  # the broken mask is not drawn
    # Expected box: 20..60 of 200 pixels horizontally, 30..90 of 120 vertically.
    canvas, box = dialog.locator(".canvas img").bounding_box(), drawn.first.bounding_box()
    scale = canvas["width"] / SIZE[0]
    assert box["x"] - canvas["x"] == pytest.approx(20 * scale, abs=2)
    assert box["y"] - canvas["y"] == pytest.approx(30 * scale, abs=2)
    assert box["width"] == pytest.approx(40 * scale, abs=4)
    assert box["height"] == pytest.approx(60 * scale, abs=4)

    page.keyboard.press("ArrowRight")
    expect(dialog.get_by_role("heading", name="image 001.png")).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    page.go_back()
    expect(page.locator(".picture")).to_have_count(1)


def test_collection_shows_its_images_with_their_tags(instance, open_page):
    fill_project(instance.store, "cells", images=5)
    page = open_page("#/projects/1")
    expect(page.locator(".picture")).to_have_count(5)
    expect(page.get_by_role("heading", name="Collections")).to_have_count(0)
    queue = instance.store.collections.create(1, EVIL, description="to correct")
    instance.store.collections.add_items(queue, [{"entityId": 2}, {"entityId": 5}])
    page.get_by_role("link", name=f"{EVIL} 2").click()  # without a reload
    expect(page.locator(".picture .body .name:first-child")).to_have_text(
        ["image 001.png", EVIL, "image 004.png", EVIL]
    )
    assert page.get_by_role("link", name=f"{EVIL} 2").get_attribute("aria-current") == "true"
    page.get_by_role("link", name="train 4").click()
    expect(page.locator(".picture")).to_have_count(4)
    assert page.evaluate("window.hacked") is None
    assert fits(page)


def test_task_progress_is_updated(instance, open_page):
    task_id = start_task(instance.store, address="http://127.0.0.1:8000")
    page = open_page()
    bar = page.get_by_role("progressbar")
    expect(bar).to_have_count(1)  # no finished bars and none that has not started
    expect(bar).to_have_attribute("aria-valuenow", "40")
    expect(page.get_by_text("Training is in progress...")).to_be_visible()
    assert has_no_js_values(page)
    link = page.get_by_role("link", name="Open the app")
    expect(link).to_have_attribute("href", "http://127.0.0.1:8000")
    change = {"op": "replace", "path": "/ProgressAutoId1/percent", "value": 73}
    instance.store.tasks.patch_content(task_id, {"data": [change]})
    expect(bar).to_have_attribute("aria-valuenow", "73")
    instance.store.tasks.set_status(task_id, "error", error=f"out of memory {EVIL}")
    expect(bar).to_have_count(0)
    expect(page.locator(".badge")).to_have_text("error")
    expect(page.get_by_text(f"out of memory {EVIL}")).to_be_visible()


def test_only_http_addresses_become_links(instance, open_page):
    for address in ("javascript:alert(1)", "//evil", 7, None):
        start_task(instance.store, address=address)
    page = open_page()
    expect(page.get_by_role("progressbar")).to_have_count(4)
    expect(page.get_by_role("link", name="Open the app")).to_have_count(0)


def test_changes_while_the_page_loads_are_shown(instance, new_page):
    page = new_page()

    def answer_too_early(route):
        answer = route.fetch()
        put_experiment(
            instance.store
        )  # before the page receives this response, which does not include the change
        route.fulfill(response=answer)

    page.route(re.compile("/page/api/experiments"), answer_too_early, times=1)
    page.goto(instance.page_address)
    expect(page.get_by_text("No experiments yet")).to_be_visible()
    expect(page.get_by_role("link", name=re.compile("cells, first try"))).to_be_visible()


def test_experiment(instance, open_page):
    put_experiment(instance.store)
    page = open_page()
    card = page.get_by_role("link", name=re.compile("cells, first try"))
    expect(card).to_contain_text("0.500")  # AP of the best epoch, from the logs
    card.click()
    expect(page.get_by_text("Metrics of the best epoch")).to_be_visible()
    metrics = page.locator(".metric").all_inner_texts()
    assert [text.split("\n") for text in metrics] == [
        ["0.500", "AP"],
        ["0.700", "AP50"],
        ["7", "loss"],
        ["3", "epoch"],
    ]
    assert [len(c.locator("circle").all()) for c in page.locator(".chart").all()] == [8, 0, 4]
    expect(page.locator("pre.text")).to_have_text(f"epoches: 4 # {EVIL}\n")
    expect(page.get_by_text("160 for training, 40 for validation")).to_be_visible()
    assert has_no_js_values(page)

    page.get_by_role("link", name="app_state.json").click()
    expect(page.get_by_role("dialog").locator("pre")).to_have_text('{\n  "model": "S"\n}')
    page.get_by_role("button", name="Close").click()
    page.get_by_role("link", name="empty.txt").click()
    expect(page.get_by_role("dialog").locator("pre")).to_have_text("(empty)")
    page.get_by_role("button", name="Close").click()
    page.get_by_role("link", name="evil.svg").click()
    assert loaded(page, ".file-image")
    page.get_by_role("button", name="Close").click()
    row = page.locator("tr", has_text="checkpoints/best.pth")
    with page.expect_download() as download:
        row.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "best.pth"
    assert download.value.path().stat().st_size == 3_000_000
    assert page.evaluate("window.hacked") is None


def test_evaluation_metrics_take_precedence(instance, open_page):
    put_experiment(instance.store, evaluation_metrics={"mAP": 0.625}, hyperparameters=None)
    page = open_page()
    card = page.get_by_role("link", name=re.compile("cells, first try"))
    expect(card).to_contain_text("0.625")
    expect(card).not_to_contain_text("AP50")
    card.click()
    metrics = page.locator(".panel", has_text="Metrics of the model benchmark")
    expect(metrics).to_contain_text("means over IoU 0.5 to 0.95")
    expect(metrics).to_contain_text("those of the training log and report.html are at IoU 0.5")


def test_unreadable_experiment(instance, open_page):
    put_experiment(instance.store)
    path = "/experiments/1_cells/7_RT-DETRv2"
    instance.store.files.put_path(1, f"{path}/experiment_info.json", b"{")
    instance.store.files.put_path(1, f"{path}/logs/events.out.tfevents.1.local", b"\x01\x02")
    page = open_page()
    expect(page.get_by_text("experiment_info.json is not readable")).to_be_visible()
    page.get_by_role("link", name=re.compile("7_RT-DETRv2")).click()
    expect(page.get_by_role("heading", name="7_RT-DETRv2")).to_be_visible()


def test_names_are_inserted_as_text(instance, open_page):
    project_id = fill_project(instance.store, EVIL, class_name=EVIL, images=1)
    put_experiment(instance.store, experiment_name=EVIL, project_id=project_id, model_name=EVIL)
    start_task(instance.store, name=EVIL)
    page = open_page()
    expect(page.get_by_text(EVIL).first).to_be_visible()
    for path in (f"#/projects/{project_id}", "#/tasks", "#/experiments", "#/projects"):
        page.goto(f"{instance.address}/{path}")
        expect(page.get_by_text(EVIL).first).to_be_visible()
    page.goto(f"{instance.address}/#/projects/{project_id}")
    page.locator(".picture").click()
    expect(page.get_by_role("dialog").get_by_text(f"tags: {EVIL}")).to_be_visible()
    assert page.locator("svg title").first.text_content() == EVIL
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img[src='x'], dialog img[src='x']").count() == 0


def test_large_project_has_pages(instance, open_page):
    fill_project(instance.store, "large", images=60)
    page = open_page("#/projects/1")
    expect(page.locator(".picture")).to_have_count(48)
    expect(page.get_by_text("page 1 of 2")).to_be_visible()
    page.get_by_role("link", name="Next").click()
    expect(page.get_by_text("page 2 of 2")).to_be_visible()
    expect(page.locator(".picture .name").first).to_have_text("image 048.png")


@pytest.mark.parametrize("width", [360, 1280])
def test_every_view_fits_its_window(instance, open_page, width):
    store = instance.store
    fill_project(store, "a_very_long_name_" * 9, class_name="w" * 90, images=5)
    put_experiment(store, experiment_name="n" * 120)
    start_task(store, name="t" * 120)
    page = open_page(viewport={"width": width, "height": 740})
    for path in ("#/", "#/projects", "#/projects/1", "#/tasks", "#/experiments"):
        page.goto(f"{instance.address}/{path}")
        page.wait_for_function("name => document.title.startsWith(name)", arg=TITLES[path])
        expect(page.locator("main .card").first).to_be_visible()
        assert fits(page), path
    page.get_by_role("link", name=re.compile("nnn")).click()
    expect(page.locator("table.files")).to_be_visible()
    assert fits(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == (scheme == "dark")


def test_missing_project(open_page, complaints):
    complaints.expect("404")
    page = open_page("#/projects/99")
    expect(page.get_by_text("This page is not available")).to_be_visible()


def test_stopped_server_keeps_the_content(open_page, instance, complaints):
    put_experiment(instance.store)
    page = open_page()
    expect(page.get_by_text("cells, first try")).to_be_visible()
    complaints.expect("ERR_CONNECTION")
    instance.stop()
    expect(page.get_by_text("the instance does not respond")).to_be_visible()
    expect(page.get_by_text("cells, first try")).to_be_visible()
