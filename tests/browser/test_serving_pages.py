"""Pages of the serving app beside the SDK's: try an image, and the documentation of the API."""

import json
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import httpx
import pytest
import torch
from torchvision.utils import save_image

from rtdetrv2_pytorch.src.data.images.decoding import read_rgb
from rtdetrv2_pytorch.src.deploy.predictor import Predictor
from rtdetrv2_pytorch.src.deploy.runtimes import open_runtime
from supervisely_integration.gui.libraries import API_SCRIPTS, API_STYLES, missing_libraries
from supervisely_integration.local.instance import LocalInstance
from supervisely_integration.paths import SERVE
from tests.app.real_app import RunningApp
from tests.browser.app_pages import AppPage, unnamed_controls
from tests.damaged_datasets import png_header
from tests.random_detectors import random_images, save_random_detector

sync_api = pytest.importorskip("playwright.sync_api", reason="no Chromium driver: playwright")
expect = sync_api.expect
pytestmark = [pytest.mark.browser, pytest.mark.slow]
WIDTH, HEIGHT = 300, 200


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A serving app without a model, a checkpoint, an image and a web server for its folder."""
    folder = tmp_path_factory.mktemp("serving_pages")
    checkpoint = save_random_detector(folder / "random.pth")
    content = torch.load(checkpoint, weights_only=True)
    for name, value in content["model"].items():
        if name.endswith("bias") and "score_head" in name:
            value += 3.5  # scores between 0.1 and 0.8
    torch.save(content, checkpoint)
    save_image(random_images(1, (HEIGHT, WIDTH))[0], folder / "image.png")
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with (
        LocalInstance(folder / "instance") as instance,
        ThreadingHTTPServer(("127.0.0.1", 0), handler) as web,
        RunningApp(
            server_address=instance.address,
            token=instance.token,
            data_dir=folder / "app",
            task_id=instance.store.tasks.create(app={"id": 2, "name": "Serve RT-DETRv2"}),
            app_dir=SERVE,
            variable="model",
            environment={"APP_NAME": "Serve RT-DETRv2", "RTDETR_URL_NETWORKS": "127.0.0.1"},
        ) as app,
    ):
        threading.Thread(target=web.serve_forever, daemon=True).start()
        app.wait_until_ready()
        yield SimpleNamespace(
            app=app,
            checkpoint=checkpoint,
            image=folder / "image.png",
            folder=folder,
            url=f"http://127.0.0.1:{web.server_port}",
        )
        web.shutdown()


@pytest.fixture(scope="module")
def deployed(served, chromium):
    """The app with the checkpoint, and what the page tells before it is deployed."""
    page = chromium.new_page()
    page.goto(f"{served.app.address}/try")
    page.get_by_label("Image file").set_input_files(served.image)
    expect(page.get_by_role("alert")).to_be_visible()
    served.told = page.get_by_role("alert").inner_text(), page.locator("#model").inner_text()
    page.close()
    params = {
        "model_files": {"checkpoint": str(served.checkpoint)},
        "model_source": "Custom models",
        "model_info": {},
        "device": "cpu",
    }
    answer = served.app.client.post("/deploy_from_api", json={"state": {"deploy_params": params}})
    answer.raise_for_status()
    return served


def expected_boxes(served):
    """(class, score, left, top, right, bottom) of the engine, best first."""
    found, _ = Predictor(open_runtime(served.checkpoint)).predict([read_rgb(served.image)], 0.01)
    names = ["cat", "dog", "owl"]
    rows = zip(
        found[0]["labels"].tolist(),
        found[0]["scores"].tolist(),
        found[0]["boxes"].tolist(),
        strict=True,
    )
    return [(names[label], score, *box) for label, score, box in rows]


def drawn_boxes(page):
    """Label and corners of each box, in pixels of the image."""
    return page.evaluate(
        """() => {
          const image = document.getElementById("image").getBoundingClientRect();
          const scale = document.getElementById("image").naturalWidth / image.width;
          return [...document.querySelectorAll(".try-box")].map((element) => {
            const box = element.getBoundingClientRect();
            const corners = [box.left - image.left, box.top - image.top,
              box.right - image.left, box.bottom - image.top];
            return [element.textContent, ...corners.map((value) => value * scale)];
          });
        }"""
    )


def rows_of(page):
    return [row.split("\t") for row in page.locator("#rows tr").all_inner_texts()]


def check_result(page, served, threshold):
    want = [row for row in expected_boxes(served) if row[1] >= threshold]
    expect(page.locator("#rows tr")).to_have_count(len(want))
    drawn, rows = drawn_boxes(page), rows_of(page)
    for (name, score, *corners), (label, *box), row in zip(want, drawn, rows, strict=True):
        assert box == pytest.approx(corners, abs=1.5)
        assert label == f"{name} {score:.2f}"
        left, top, right, bottom = box
        assert row[:2] == [name, f"{score:.3f}"]
        numbers = [int(cell) for cell in row[2:]]
        assert numbers == pytest.approx([left, top, right - left, bottom - top], abs=0.1)
    return len(want)


def test_detections_of_a_file_and_a_url_are_drawn(deployed, new_page):
    app = AppPage(new_page(), f"{deployed.app.address}/")
    page = app.page
    page.get_by_role("link", name="Try an image").click()
    expect(page.locator("#model")).to_contain_text("random.pth, PyTorch on cpu, input 160x96")
    page.get_by_label("Image file").set_input_files(deployed.image)
    summary = page.locator("#summary")
    expect(summary).to_contain_text(
        re.compile(r"in 300x200 pixels\. Inference time [1-9][\d.]* ms")
    )
    assert (few := check_result(page, deployed, 0.5)) > 0

    slider = page.get_by_role("slider", name="Confidence threshold")
    slider.focus()
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    expect(summary).to_contain_text("score of at least 0.30")
    assert check_result(page, deployed, 0.3) > few
    assert unnamed_controls(page) == []
    app.picture("try")

    page.get_by_label("Image URL").fill(f"{deployed.url}/image.png?same")
    page.keyboard.press("Enter")
    expect(page.get_by_role("img", name="image.png?same")).to_be_visible()
    assert check_result(page, deployed, 0.3) > few


def test_errors_are_sentences(deployed, new_page, complaints):
    for status in (400, 413):
        complaints.expect(f"status of {status}")
    message = "No model is deployed. Deploy one on the app's page, then choose the image again."
    assert deployed.told == (message, "No model is deployed")
    page = AppPage(new_page(), f"{deployed.app.address}/try").page
    problem = page.get_by_role("alert")
    contents = {
        "is not an image": (b"text", "notes.jpg: cannot be read as an image"),
        "is too large": (png_header(20_000, 20_000), "notes.jpg: 20000x20000"),
    }
    for content, told in contents.values():
        file = {"name": "notes.jpg", "mimeType": "image/jpeg", "buffer": content}
        page.get_by_label("Image file").set_input_files(file)
        expect(problem).to_contain_text(told)
    page.get_by_label("Image URL").fill(f"{deployed.url}/missing.png")
    page.get_by_role("button", name="Load").click()
    expect(problem).to_contain_text("missing.png: cannot be downloaded (status 404)")
    expect(page.locator("#result")).to_be_hidden()


@pytest.mark.skipif(
    bool(missing_libraries((*API_SCRIPTS, *API_STYLES))), reason="no page libraries: make page"
)
def test_api_page_sends_requests(deployed, new_page):
    app = AppPage(new_page(), f"{deployed.app.address}/try")
    page = app.page
    page.get_by_role("link", name="API").click()
    files = {"files": deployed.image.read_bytes()}
    answer = httpx.post(f"{deployed.app.address}/inference_image", files=files, timeout=60).json()
    best = answer["annotation"]["objects"][0]["classTitle"]
    upload = page.locator(".opblock", has=page.locator("[data-path='/inference_image']"))
    upload.locator("button.opblock-summary-control").click()
    upload.locator("input[type=file]").set_input_files(deployed.image)
    upload.get_by_role("button", name="Execute").click()
    response = upload.locator(".live-responses-table")
    expect(response).to_contain_text(f'"classTitle": "{best}"')
    expect(response).to_contain_text("server-timing: preprocess;dur=")
    app.picture("api")


def test_examples_of_the_api_page_are_valid(deployed):
    client, refused = httpx.Client(base_url=deployed.app.address, timeout=60), {}
    description = client.get("/openapi.json").json()
    for path, operations in description["paths"].items():
        ((kind, body),) = operations["post"]["requestBody"]["content"].items()
        if kind == "application/json":
            example = json.dumps(body["example"])
            example = example.replace("https://example.com/image.jpg", f"{deployed.url}/image.png")
            options = {"content": example, "headers": {"content-type": kind}}
        else:
            state = body["schema"]["properties"]["state"]["default"]
            options = {"files": {"files": deployed.image.read_bytes()}, "data": {"state": state}}
        answer = client.post(path, **options)
        if answer.status_code != 200:
            refused[path] = answer.status_code, answer.json()["message"]
    # The examples contain ids and a path that do not exist here.
    missing = (
        "there is no such uuid",
        "not exist",
        "doesn't exist",
        "not found",
        "No such",
        "no such",
    )
    assert {
        path: why for path, why in refused.items() if not any(m in why[1] for m in missing)
    } == {}
    assert {status for status, _ in refused.values()} == {400}
    assert len(refused) == 7
