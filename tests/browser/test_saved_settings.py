"""Settings of another project on the page, its default split, and weights that are missing."""

import re

import pytest

from supervisely_integration.gui.libraries import missing_libraries
from supervisely_integration.local.instance import LocalInstance
from tests.app.real_app import (
    CLASSES,
    RunningApp,
    create_training_task,
    make_project,
    state_of,
)
from tests.browser.app_pages import LONG_MS, AppPage, unnamed_controls

sync_api = pytest.importorskip("playwright.sync_api", reason="no Chromium driver: playwright")
expect = sync_api.expect
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing_libraries()), reason="no page libraries: make page"),
]
SPLIT = "Splits of the data: training my_train (6 images), validation dev (4 images)."
RANDOM_WEIGHTS = "RT-DETRv2-S (random weights)"
# Of a project with class 7 and other datasets, with weights that are not in the cache.
SETTINGS = state_of(
    {"method": "datasets", "train_datasets": [901], "val_datasets": [902]},
    start_training=False,
    model={"source": "Pretrained models", "model_name": "RT-DETRv2-S"},
    experiment_name="my experiment",
)


@pytest.fixture
def open_page(tmp_path, new_page):
    """Open the app for a project without class 7, whose datasets are named otherwise."""
    apps = []
    with LocalInstance(tmp_path / "instance") as instance:
        project = make_project(
            instance.store, tmp_path / "data", name="other", datasets=("my_train", "dev")
        )
        meta = instance.store.projects.meta(project)
        kept = [each for each in meta["classes"] if each["title"] != "7"]
        instance.store.projects.set_meta(project, {**meta, "classes": kept})

        def start(state, **options):
            task_id = create_training_task(instance.store)
            app = RunningApp(
                server_address=instance.address,
                token=instance.token,
                project_id=project,
                data_dir=tmp_path / f"task_{task_id}",
                task_id=task_id,
                app_state=state,
                environment={
                    "HOME": str(tmp_path),  # no cached weights
                    "TORCH_HOME": str(tmp_path),
                    "https_proxy": "http://127.0.0.1:1",  # no network
                },
            )
            apps.append(app)
            app.wait_until_ready()
            return AppPage(new_page(reduced_motion="reduce", **options), app.address)

        yield start
        for app in apps:
            app.kill()


def select(page, card, then):
    page.press(card, "Select")
    expect(page.card(then)).to_have_attribute("aria-disabled", "false", timeout=LONG_MS)


def test_page_names_the_settings_that_do_not_fit(open_page):
    page = open_page(SETTINGS)
    expect(page.card("Input project")).to_contain_text(
        "The settings are loaded. The project has no class 7; 9 of 10 classes are selected. "
        "The project has no dataset with ID 901, 902. Choose the split."
    )
    assert page.step() == "Select Model"
    models = page.card("Select Model")
    expect(models).to_contain_text("Could not download https://github.com/")
    page.picture("settings_of_another_project")
    offer = models.get_by_role("button", name=f"Use {RANDOM_WEIGHTS}")
    offer.click()
    expect(models.get_by_role("radio", name=RANDOM_WEIGHTS)).to_be_checked()
    expect(models).to_contain_text(f"{RANDOM_WEIGHTS} is selected. Press Select")
    expect(offer).to_be_hidden()
    select(page, "Select Model", "Classes Selector")

    classes = page.card("Classes Selector")
    expect(classes).to_contain_text("The project has no class 7; 9 of 10 classes are selected.")
    boxes = classes.locator("tbody").get_by_role("checkbox")
    assert [box.is_checked() for box in boxes.all()] == [True] * (len(CLASSES) - 1)
    select(page, "Classes Selector", "Train / Val Splits")

    splits = page.card("Train / Val Splits")
    missing = "The project has no dataset with ID 901, 902. Choose the split."
    expect(splits).to_contain_text(f"{missing} {SPLIT}")
    page.picture("split_of_another_project")
    select(page, "Train / Val Splits", "Hyperparameters")
    expect(page.card("Hyperparameters")).to_contain_text('"num_queries": 12')
    expect(page.card("Hyperparameters")).not_to_contain_text("are preset")
    assert unnamed_controls(page.page) == []
    select(page, "Hyperparameters", "Training Process")
    name = page.card("Training Process").get_by_role("textbox", name="Experiment name")
    expect(name).to_have_value("my experiment")
    time = re.compile(r"Takes about .* \(2 epochs of 3 steps at .* s, evaluation included\)")
    expect(page.card("Training Process")).to_contain_text(time, timeout=LONG_MS)


def test_page_selects_the_split_that_the_names_decide(open_page):
    page = open_page(None, viewport={"width": 380, "height": 800})
    select(page, "Input project", "Select Model")
    page.card("Select Model").get_by_role("radio", name=RANDOM_WEIGHTS).click()
    select(page, "Select Model", "Classes Selector")
    select(page, "Classes Selector", "Train / Val Splits")
    splits = page.card("Train / Val Splits")
    expect(splits).to_contain_text(SPLIT)
    expect(splits.get_by_role("radio", name="Based on datasets")).to_be_checked()
    for dataset, expected in (("my_train", [True, False]), ("dev", [False, True])):
        boxes = splits.get_by_role("checkbox", name=dataset).all()
        assert [box.is_checked() for box in boxes] == expected
    page.picture("decided_split")
