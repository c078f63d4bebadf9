"""Settings of an earlier training on a project that differs."""

import pytest

from supervisely_integration.settings.fitting import ProjectContent, fit_settings

PROJECT = ProjectContent(
    classes={"cat": 11, "dog": 12}, tags={"train", "val"}, datasets={1, 2}, collections={5, 6}
)


def fit_split(**split):
    fitted, notes = fit_settings({"train_val_split": split}, PROJECT)
    return fitted.get("train_val_split"), notes.get("train_val_split")


def test_settings_that_fit_are_unchanged():
    settings = {
        "model": {"source": "Pretrained models", "model_name": "x"},
        "classes": ["dog", 11],
        "train_val_split": {"method": "datasets", "train_datasets": [1], "val_datasets": [2]},
        "hyperparameters": "epoches: 3",
    }
    assert fit_settings(settings, PROJECT) == (settings, {})


def test_missing_classes():
    fitted, notes = fit_settings({"classes": ["cat", "bird"]}, PROJECT)
    assert fitted == {"classes": ["cat"]}
    assert notes == {"classes": "The project has no class bird; 1 of 2 classes are selected."}
    fitted, notes = fit_settings({"classes": ["bird"]}, PROJECT)
    assert fitted == {}
    assert notes == {"classes": "The project has no class bird. Select classes."}


def test_long_list_is_shortened():
    _, notes = fit_settings({"classes": [f"c{i}" for i in range(25)]}, PROJECT)
    assert "c9 and 15 more" in notes["classes"]
    assert "c10" not in notes["classes"]


@pytest.mark.parametrize(("method", "one"), [("datasets", 1), ("collections", 5)])
def test_removed_datasets_and_collections(method, one):
    kind = method.removesuffix("s")
    train, val = f"train_{method}", f"val_{method}"
    split, note = fit_split(method=method, **{train: [one, 77], val: [one + 1]})
    assert split == {"method": method, train: [one], val: [one + 1]}
    assert note == f"The project has no {kind} with ID 77; the others are selected."
    split, note = fit_split(method=method, **{train: [one], val: [77, 78]})
    assert split is None
    assert note == f"The project has no {kind} with ID 77, 78. Choose the split."


def test_missing_tags():
    tags = {"method": "tags", "train_tag": "train", "untagged_action": "ignore"}
    assert fit_split(**tags, val_tag="val") == ({**tags, "val_tag": "val"}, None)
    assert fit_split(**tags, val_tag="test") == (
        None,
        "The project has no tag test. Choose the split.",
    )


def test_random_split_fits_every_project():
    random = {"method": "random", "split": "train", "percent": 80}
    assert fit_split(**random) == (random, None)
