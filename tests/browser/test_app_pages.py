"""The pages of both apps in a real Chromium: from a project to a served model."""

import re
from types import SimpleNamespace

import pytest
import torch

from supervisely_integration.gui.libraries import missing_libraries
from supervisely_integration.local.instance import LocalInstance
from supervisely_integration.local.launcher.results import find_experiment
from supervisely_integration.paths import SERVE
from supervisely_integration.task_status import KEEP_OPEN
from tests.app.real_app import CLASSES, MODEL, TINY, RunningApp, make_project, read_json, state_of
from tests.browser.app_pages import LONG_MS, AppPage, unnamed_controls

sync_api = pytest.importorskip("playwright.sync_api", reason="no Chromium driver: playwright")
expect = sync_api.expect
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing_libraries()), reason="no page libraries: make page"),
]
DONE = re.compile("Training completed")
PRESET = "No GPU: 256x256 pixels and"
STATUS = "Status: Training is in progress..."
# Per epoch. Bars are updated once a second: steps of smaller images would take less.
SIX_STEPS = {**TINY, "batch_size": 1, "eval_spatial_size": [416, 416], "report": True}


@pytest.fixture
def place(tmp_path):
    """An instance with the digits; those of class 3 are polygons."""
    with LocalInstance(tmp_path / "instance") as instance:
        project = make_project(instance.store, tmp_path / "data", name="digits", polygons=("3",))
        yield SimpleNamespace(instance=instance, project=project, folder=tmp_path)


def training_app(place, **options):
    task_id = place.instance.store.tasks.create(app={"id": 1, "name": "Train RT-DETRv2"})
    return task_id, RunningApp(
        server_address=place.instance.address,
        token=place.instance.token,
        project_id=place.project,
        data_dir=place.folder / "task",
        task_id=task_id,
        **options,
    )


def serving_app(place):
    return RunningApp(
        server_address=place.instance.address,
        token=place.instance.token,
        data_dir=place.folder / "serving",
        task_id=place.instance.store.tasks.create(app={"id": 2, "name": "Serve RT-DETRv2"}),
        app_dir=SERVE,
        variable="model",
        environment={"APP_NAME": "Serve RT-DETRv2"},
    )


def choose_everything(page):
    """Complete the first steps with a model and classes that are not the defaults."""
    assert page.step() == "Input project"
    assert page.locked("Select Model")
    expect(page.card("Input project").get_by_role("link", name="digits")).to_be_visible()
    # With the keyboard only: the first card has a link, a checkbox and a button.
    button = page.card("Input project").get_by_role("button", name="Select")
    page.card("Input project").get_by_role("link").focus()
    page.page.keyboard.press("Tab")
    page.page.keyboard.press("Tab")
    expect(button).to_be_focused()
    page.page.keyboard.press("Enter")

    expect(page.card("Select Model")).to_have_attribute("aria-disabled", "false")
    models = page.card("Select Model")
    models.get_by_role("radio", name="RT-DETRv2-S", exact=True).focus()
    page.page.keyboard.press("ArrowDown")
    expect(models.get_by_role("radio", name="RT-DETRv2-M*", exact=True)).to_be_checked()
    models.get_by_role("radio", name="Custom models").click()
    expect(models.get_by_role("cell", name="No data")).to_be_visible()
    models.get_by_role("radio", name="Pretrained models").click()
    models.get_by_role("radio", name=MODEL).click()
    page.press("Select Model", "Select")

    classes = page.card("Classes Selector")
    expect(classes.get_by_role("checkbox", name=re.compile("^3 polygon"))).to_be_checked()
    classes.get_by_role("checkbox", name=re.compile("^7 rectangle")).click()
    classes.get_by_role("checkbox", name="Convert classes to model task type").click()
    page.picture("classes")
    page.press("Classes Selector", "Select")
    expect(page.card("Train / Val Splits")).to_have_attribute("aria-disabled", "false")


def choose_a_split(page):
    """Visit every split method and select the tags."""
    splits = page.card("Train / Val Splits")
    expect(splits.get_by_role("radio", name="Based on datasets")).to_be_checked()
    boxes = splits.get_by_role("checkbox", name="train")
    assert [box.is_checked() for box in boxes.all()] == [True, False]
    splits.get_by_role("radio", name="Random").click()
    expect(splits.get_by_role("textbox", name="Percent of train")).to_have_value("80")
    splits.locator(".el-input-number__increase").click()
    expect(splits.locator("tr", has_text="val")).to_contain_text("19%")
    splits.get_by_role("radio", name="Based on item tags").click()
    for title, tag in (("Train tag", "train"), ("Validation tag", "val")):
        splits.get_by_role("combobox", name=title).click()
        page.page.get_by_role("option", name=tag, exact=True).locator("visible=true").click()
        expect(splits.get_by_role("combobox", name=title)).to_have_value(tag)
    page.picture("split")
    page.press("Train / Val Splits", "Select")
    expect(page.card("Hyperparameters")).to_have_attribute("aria-disabled", "false")


def start_with_mistakes_then_without(page):
    """An unknown key is reported next to the editor, an invalid name in a dialog."""
    if not torch.cuda.is_available():
        expect(page.card("Hyperparameters")).to_contain_text(PRESET)
        expect(page.card("Hyperparameters")).to_contain_text("eval_spatial_size: [256, 256]")
    page.card("Hyperparameters").get_by_role(
        "checkbox", name="Run Model Benchmark evaluation"
    ).click()
    page.picture("hyperparameters")
    page.write_hyperparameters({**TINY, "batch_siz": 2})
    page.press("Hyperparameters", "Select")
    message = page.card("Hyperparameters").get_by_role("alert")
    line = f"line {len(TINY) + 1}: unknown key 'batch_siz'; did you mean 'batch_size' or "
    expect(message).to_contain_text(line)
    expect(page.card("Hyperparameters").locator(".wrong")).to_have_text("batch_siz: 2")
    assert page.locked("Training Process")
    page.write_hyperparameters(SIX_STEPS)
    page.press("Hyperparameters", "Select")
    expect(message).to_be_hidden()
    expect(page.card("Hyperparameters")).not_to_contain_text(PRESET)  # replaced by own values
    expect(page.card("Training Process")).to_contain_text("Estimating the time...")

    name = page.card("Training Process").get_by_role("textbox", name="Experiment name")
    given = name.input_value()
    name.fill("a/b")
    page.press("Training Process", "Start")
    dialog = page.page.get_by_role("dialog")
    expect(dialog).to_contain_text("invalid characters")
    expect(dialog.get_by_role("button", name="OK")).to_be_focused()
    page.picture("error")
    page.page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert page.step() == "Training Process"
    name.fill(given)
    assert unnamed_controls(page.page) == []
    page.note_bars()
    page.press("Training Process", "Start")


def refuse_in_a_dialog(page, app, state):
    """The reason is shown as text, until OK is pressed once."""
    wrong = {**state, "hyperparameters": 'batch_size: "<NAME> <b>"'}
    body = {"app_state": wrong, "wait": True}
    assert app.client.post("/train_from_api", json={"state": body}).status_code == 500
    dialog = page.page.get_by_role("dialog")
    expect(dialog).to_contain_text("hyperparameters, line 1: batch_size = '<NAME> <b>'")
    process = page.card("Training Process")
    dialog.get_by_role("button", name="OK").click()
    expect(dialog).to_have_count(0)
    page.page.reload()
    expect(process).to_be_visible()
    expect(dialog).to_have_count(0)
    assert page.step() == "Training Process"
    done = ("Input project", "Select Model", "Classes Selector", "Train / Val Splits")
    for each in done:  # the second settings do not deselect the steps of the first
        expect(page.card(each).get_by_role("button", name="Reselect")).to_be_visible()
    page.write_hyperparameters({**TINY, "epoches": 500})
    page.press("Hyperparameters", "Select")


def watch_to_the_end(page):
    """The page updates bars and log, and links the result."""
    expect(page.card("Training Process")).to_contain_text(STATUS, timeout=LONG_MS)
    page.press("Training Logs", "Show logs")
    log = page.card("Training Logs").get_by_role("log")
    expect(log).to_contain_text(re.compile(r"epoch=2 step=\d/6 loss="), timeout=LONG_MS)
    page.picture("training")
    artifacts = page.card("Training Artifacts")
    expect(artifacts.get_by_text(DONE)).to_be_visible(timeout=LONG_MS)
    done = {100 * step // 6 for step in range(1, 7)}  # the SDK truncates to whole percents
    assert page.seen_percents("Steps") <= {0, *done}
    assert len(page.seen_percents("Steps") & done) >= 2
    assert 50 in page.seen_percents("Epochs")
    expect(artifacts.get_by_role("link", name="Experiment Report")).to_be_visible()
    expect(page.page.get_by_role("status").first).to_contain_text("its last state", timeout=LONG_MS)
    page.picture("result")


@pytest.fixture
def quiet(complaints):
    """Accept the connection errors of a page whose app has ended."""
    for text in ("ERR_CONNECTION", "status of 500", "WebSocket"):
        complaints.expect(text)


def test_from_a_project_to_a_served_model(place, new_page, quiet):
    task_id, app = training_app(place)
    with app:
        app.wait_until_ready()
        page = AppPage(new_page(reduced_motion="reduce"), app.address)
        page.picture("start")
        choose_everything(page)
        choose_a_split(page)
        start_with_mistakes_then_without(page)
        watch_to_the_end(page)
        assert app.wait(60) == 0, app.log_tail(60)
        link = page.card("Training Artifacts").get_by_role("link", name="Experiment Report")
        with page.page.context.expect_page() as opened:
            link.click()
        experiment = opened.value
        expect(experiment.get_by_text("digits").first).to_be_visible()
        with page.page.context.expect_page() as opened:
            experiment.get_by_role("link", name="Training report").click()
        expect(opened.value.get_by_role("heading", name="Validation images")).to_be_visible()
    info = find_experiment(place.instance.store, task_id)
    assert info["model_name"] == MODEL
    assert (info["train_size"], info["val_size"]) == (6, 4)
    record = place.instance.store.files.entries(1, info["artifacts_dir"])
    state = next(each for each in record if each["name"] == "app_state.json")
    chosen = read_json(place.instance.store, state)
    assert sorted(chosen["classes"]) == [name for name in CLASSES if name != "7"]
    assert chosen["train_val_split"]["train_tag"] == "train"
    serve_it(place, new_page)


def serve_it(place, new_page):
    with serving_app(place) as app:
        app.wait_until_ready()
        page = AppPage(new_page(reduced_motion="reduce"), app.address)
        select = page.card("Select Model")
        expect(select.get_by_role("radio", name=re.compile("RT-DETRv2-S$"))).to_be_visible()
        select.get_by_role("radio", name="Custom models").click()
        row = select.get_by_role("row", name=re.compile(re.escape(MODEL)))
        row.get_by_role("radio").click()
        row.get_by_role("combobox").click()
        page.page.get_by_role("option", name="last.pth").locator("visible=true").click()
        page.picture("serving")
        assert unnamed_controls(page.page) == []
        page.press("Serve Model", "SERVE")
        serve = page.card("Serve Model")
        expect(serve.get_by_role("button", name="STOP AND CHOOSE ANOTHER MODEL")).to_be_visible(
            timeout=LONG_MS
        )
        expect(page.card("Full model info")).to_contain_text("last.pth")
        for name in ("0", "9"):
            expect(page.card("Full model info").get_by_role("cell", name=name)).to_be_visible()
        page.picture("served")
        page.press("Serve Model", "STOP AND CHOOSE ANOTHER MODEL")
        expect(serve.get_by_role("button", name="SERVE")).to_be_visible()


def test_stop_button_saves_the_training(place, new_page, quiet):
    split = {"method": "datasets", "train_datasets": [1], "val_datasets": [2]}
    state = state_of(split, start_training=False, hyperparameters={"epoches": 500})
    state["options"]["model_benchmark"]["enable"] = True
    task_id, app = training_app(place, app_state=state, environment={KEEP_OPEN: "1"})
    with app:
        app.wait_until_ready()
        page = AppPage(
            new_page(viewport={"width": 380, "height": 800}, reduced_motion="reduce"), app.address
        )
        assert page.step() == "Training Process"
        time = re.compile(r"Takes about .* \(500 epochs of 3 steps at .* s, evaluation included\)")
        expect(page.card("Training Process")).to_contain_text(time, timeout=LONG_MS)
        refuse_in_a_dialog(page, app, state)
        page.press("Training Process", "Start")
        page.wait_for_steps()
        page.picture("narrow")
        page.press("Training Process", "Stop")
        expect(page.card("Training Process")).to_contain_text("Stopping after this batch")
        artifacts = page.card("Training Artifacts")
        expect(artifacts).to_contain_text("Not evaluated", timeout=LONG_MS)
        expect(artifacts).to_contain_text("Stopped, saved")
        expect(page.card("Training Process")).to_contain_text("Stopped, saved")
        info = find_experiment(place.instance.store, task_id)
        assert "last.pth" in " ".join(info["checkpoints"])
        name = page.card("Training Process").get_by_role("textbox", name="Experiment name")
        expect(name).to_have_value(f"{info['experiment_name']} #2")
        page.press("Training Process", "Start")
        expect(artifacts).not_to_contain_text("Stopped, saved")
        page.wait_for_steps()
        app.stop()  # as Ctrl-C in the terminal: the second training is saved, too
        assert app.wait(120) == 0, app.log_tail(60)
    second = find_experiment(place.instance.store, task_id)
    assert second["experiment_name"] == f"{info['experiment_name']} #2"
    assert second["artifacts_dir"].rstrip("/") == info["artifacts_dir"].rstrip("/") + "_000"
