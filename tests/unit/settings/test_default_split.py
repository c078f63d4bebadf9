import pytest

from supervisely_integration.settings.default_split import default_split


def test_names_of_datasets_decide():
    datasets = {"day/my_train": (1, 10), "night/Training": (2, 5), "dev": (3, 4), "test": (4, 3)}
    found = default_split(datasets, {})
    assert found.settings == {
        "method": "datasets",
        "train_datasets": [1, 2],
        "val_datasets": [3],
    }
    assert (found.num_train, found.num_val) == (15, 4)
    assert found.note.startswith("Splits of the data: training day/my_train, night/Training (15 im")
    assert found.note.endswith("test split test (3 images) not used")


def test_collections_of_the_import_are_used_if_no_dataset_is_named():
    collections = {"train": (7, 8), "val": (8, 2), "mine": (9, 1)}
    found = default_split({"ds": (1, 10)}, collections)
    assert found.settings == {
        "method": "collections",
        "train_collections": [7],
        "val_collections": [8],
    }
    assert (found.num_train, found.num_val) == (8, 2)
    assert "stratified by class, seed 0" in found.note
    named = default_split({"train": (1, 8), "val": (2, 2)}, collections)
    assert named.settings["method"] == "datasets"


@pytest.mark.parametrize(
    ("datasets", "why"),
    [
        ({"train": (1, 7)}, "the datasets name a training split only"),
        ({"ds": (1, 4), "more": (2, 3)}, "the datasets name no splits"),
        ({"train": (1, 4), "misc": (2, 3)}, "the datasets name a training split only"),
    ],
)
def test_random_split_says_why(datasets, why):
    found = default_split(datasets, {"train": (7, 8)})
    assert found.settings == {"method": "random", "split": "train", "percent": 80}
    assert (found.num_train, found.num_val) == (6, 1)
    assert found.note == (
        f"Random split of 7 images ({why}): 80 % training, 20 % validation, "
        "chosen by the platform at each start"
    )


def test_test_split_is_not_trained_on():
    found = default_split({"test": (1, 7)}, {})
    assert found.settings == {}
    assert "only a test split (test) found" in found.note
