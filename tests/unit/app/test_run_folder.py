"""What a relaunched task finds again, and when it starts anew."""

import dataclasses
import logging

import pytest

from supervisely_integration.train.run_folder import RunFolder, SavedRun, fingerprint

WHAT = {
    "project_id": 3,
    "classes": ["cat", "dog"],
    "train": [("ds", "a.png"), ("ds/sub", "b.png")],
    "val": [("ds", "c.png")],
    "model": {"source": "Pretrained models", "model_name": "S"},
    "hyperparameters": {"epoches": 3, "optimizer": {"lr": 0.1, "type": "AdamW"}},
}
RUN = SavedRun(
    fingerprint=fingerprint(**WHAT),
    app_state={"classes": ["cat", "dog"], "experiment_name": "größer"},
    train=WHAT["train"],
    val=WHAT["val"],
)


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path, 17)


def finish_an_epoch(folder):
    (folder.output / "last.pth").write_bytes(b"weights")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("project_id", 4),
        ("classes", ["dog", "cat"]),
        ("train", [("ds/sub", "b.png"), ("ds", "a.png")]),
        ("val", []),
        ("model", {"source": "Pretrained models", "model_name": "L"}),
        ("hyperparameters", {"epoches": 4, "optimizer": {"lr": 0.1, "type": "AdamW"}}),
    ],
)
def test_all_that_decides_the_numbers_makes_another_training(key, value):
    assert fingerprint(**WHAT) != fingerprint(**{**WHAT, key: value})


def test_the_order_of_keys_does_not(folder):
    turned = {"optimizer": {"type": "AdamW", "lr": 0.1}, "epoches": 3}
    assert fingerprint(**WHAT) == fingerprint(**{**WHAT, "hyperparameters": turned})


def test_a_new_task_begins_without_a_checkpoint(folder):
    assert folder.load() is None
    assert folder.begin(RUN) is None
    assert folder.output.is_dir()
    assert folder.load() == RUN


def test_the_same_training_goes_on_from_its_last_checkpoint(folder):
    folder.begin(RUN)
    finish_an_epoch(folder)
    assert folder.begin(RUN) == folder.output / "last.pth"
    assert (folder.output / "last.pth").read_bytes() == b"weights"


def test_another_training_starts_anew_and_says_so(folder, caplog):
    folder.begin(RUN)
    finish_an_epoch(folder)
    other = dataclasses.replace(RUN, fingerprint="other")
    with caplog.at_level(logging.INFO):
        assert folder.begin(other) is None
    assert "holds another training" in caplog.text
    assert "a new run starts" in caplog.text
    assert not (folder.output / "last.pth").exists()
    assert folder.load() == other


def test_tasks_do_not_share_a_folder(tmp_path):
    RunFolder(tmp_path, 17).begin(RUN)
    assert RunFolder(tmp_path, 18).load() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"fingerprint": "a"}', "\xff"])
def test_a_damaged_record_is_no_record(folder, caplog, text):
    folder.begin(RUN)
    (folder.path / "run.json").write_text(text, encoding="latin-1")
    assert folder.load() is None
    assert "cannot be used" in caplog.text
    assert folder.begin(RUN) is None


def test_removing_is_final_and_can_be_repeated(folder):
    folder.begin(RUN)
    folder.remove()
    folder.remove()
    assert not folder.path.exists()
    assert folder.last_checkpoint is None
