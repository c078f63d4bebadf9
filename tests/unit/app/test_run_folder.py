"""The run folder of a relaunched task: when it resumes and when it starts over."""

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
def test_fingerprint_depends_on_everything_that_determines_the_numbers(key, value):
    assert fingerprint(**WHAT) != fingerprint(**{**WHAT, key: value})


def test_fingerprint_ignores_the_order_of_keys(folder):
    turned = {"optimizer": {"type": "AdamW", "lr": 0.1}, "epoches": 3}
    assert fingerprint(**WHAT) == fingerprint(**{**WHAT, "hyperparameters": turned})


def test_new_task_has_no_checkpoint(folder):
    assert folder.load() is None
    assert folder.begin(RUN) is None
    assert folder.output.is_dir()
    assert folder.load() == RUN


def test_same_training_resumes_from_its_last_checkpoint(folder):
    folder.begin(RUN)
    finish_an_epoch(folder)
    assert folder.begin(RUN) == folder.output / "last.pth"
    assert (folder.output / "last.pth").read_bytes() == b"weights"


def test_different_training_starts_over(folder, caplog):
    folder.begin(RUN)
    finish_an_epoch(folder)
    other = dataclasses.replace(RUN, fingerprint="other")
    with caplog.at_level(logging.INFO):
        assert folder.begin(other) is None
    assert "holds a different training" in caplog.text
    assert "starting a new run" in caplog.text
    assert not (folder.output / "last.pth").exists()
    assert folder.load() == other


def test_tasks_do_not_share_a_folder(tmp_path):
    RunFolder(tmp_path, 17).begin(RUN)
    assert RunFolder(tmp_path, 18).load() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"fingerprint": "a"}', "\xff"])
def test_damaged_record_is_ignored(folder, caplog, text):
    folder.begin(RUN)
    (folder.path / "run.json").write_text(text, encoding="latin-1")
    assert folder.load() is None
    assert "not readable" in caplog.text
    assert folder.begin(RUN) is None


def test_remove_can_be_repeated(folder):
    folder.begin(RUN)
    folder.remove()
    folder.remove()
    assert not folder.path.exists()
    assert folder.last_checkpoint is None


def test_remove_can_keep_a_folder_to_resume_from(folder):
    folder.begin(RUN)
    finish_an_epoch(folder)
    folder.remove(keep_checkpoint=True)
    assert folder.last_checkpoint is not None
    folder.last_checkpoint.unlink()
    folder.remove(keep_checkpoint=True)
    assert not folder.path.exists()
