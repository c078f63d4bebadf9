"""The splits that the page selects at first, and the numbers of their images, with the real SDK."""

import pytest

from rtdetrv2.training.data_extent import DataExtent
from supervisely_integration.local.emulator.storage.sql.listing import Listing
from tests.app.real_app import make_project
from tests.sdk import import_sdk

import_sdk()

import supervisely as sly  # noqa: E402 (imported in a thread above)
from supervisely.app.widgets import SplitMethod  # noqa: E402

from supervisely_integration.sdk.training_gui import DecidedTrainValSplitsSelector  # noqa: E402
from supervisely_integration.train.plan.project_size import (  # noqa: E402
    project_extent,
    split_sizes,
)


@pytest.fixture
def api(instance, monkeypatch):
    monkeypatch.setenv("SERVER_ADDRESS", instance.address)
    monkeypatch.setenv("API_TOKEN", instance.token)
    monkeypatch.setenv("TEAM_ID", "1")
    monkeypatch.setenv("WORKSPACE_ID", "1")
    return sly.Api()


def open_step(api, project_id, monkeypatch):
    monkeypatch.setenv("PROJECT_ID", str(project_id))
    return DecidedTrainValSplitsSelector(api, project_id, {})


def images_of(store, project_id):
    return [each["id"] for each in store.images.page(Listing(), projectId=project_id)["entities"]]


def items(images):
    return [{"entityId": id_} for id_ in images]


def test_named_datasets(instance, api, tmp_path, monkeypatch):
    project = make_project(instance.store, tmp_path, name="named", datasets=("a_train", "dev"))
    step = open_step(api, project, monkeypatch)
    assert step.get_split_method() == SplitMethod.DATASETS
    assert split_sizes(api, step) == (6, 4)
    note = "Splits of the data: training a_train (6 images), validation dev (4 images)."
    assert (step.validator_text.text, step.validator_text.status) == (note, "info")
    longest_side, most, mean = instance.store.projects.extent(project)
    expected = DataExtent(longest_side=320, max_boxes=most, mean_boxes=mean)
    assert project_extent(api, project) == expected
    assert longest_side == 320


def test_collections_of_an_import(instance, api, tmp_path, monkeypatch):
    store = instance.store
    project = make_project(store, tmp_path, name="imported", datasets=("one", "two"))
    images = images_of(store, project)
    for name, part in (("train", images[:7]), ("val", images[7:])):
        store.collections.add_items(store.collections.create(project, name), items(part))
    step = open_step(api, project, monkeypatch)
    assert step.get_split_method() == SplitMethod.COLLECTIONS
    assert split_sizes(api, step) == (7, 3)
    assert step.validator_text.text.startswith("Random split of 10 images")


def test_random_split_and_tags(instance, api, tmp_path, monkeypatch):
    project = make_project(instance.store, tmp_path, name="plain", datasets=("one", "two"))
    step = open_step(api, project, monkeypatch)
    assert step.get_split_method() == SplitMethod.RANDOM
    assert split_sizes(api, step) == (8, 2)
    assert step.validator_text.text == (
        "Random split of 10 images (the datasets name no splits): 80 % training, 20 % validation, "
        "chosen by the platform at each start."
    )
    for action, expected in (("ignore", (6, 4)), ("train", (6, 4))):
        step.train_val_splits.set_tags_splits("train", "val", action)
        assert split_sizes(api, step) == expected
