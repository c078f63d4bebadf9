"""The training app on two devices: two ranks on the CPU."""

import logging
import re

import pytest

from rtdetrv2_pytorch.src.misc.errors import RankError
from rtdetrv2_pytorch.src.solver.events import TrainingEvents
from rtdetrv2_pytorch.src.solver.stopping import StopFlag
from supervisely_integration.train.ranks import train_on_devices
from tests.app.running import RunningApp, files_below, make_project, read_json, state_of
from tests.ranks import environment
from tests.tiny import CONFIGS, tiny_values

RECIPE = CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml"
TAGS = {"method": "tags", "train_tag": "train", "val_tag": "val", "untagged_action": "ignore"}


def test_the_app_trains_on_two_devices(instance, tmp_path):
    project_id = make_project(instance.store, tmp_path / "digits", name="digits")
    task_id = instance.store.tasks.create(app={"id": 1, "name": "Train RT-DETRv2", "version": "1"})
    with RunningApp(
        server_address=instance.address,
        token=instance.token,
        project_id=project_id,
        data_dir=tmp_path / "task",
        task_id=task_id,
        app_state=state_of(TAGS),
        environment={"CPU_RANKS": "2"},
    ) as app:
        assert app.wait(400) == 0, app.log_tail(60)
        log = app.log()
    assert "Training on 2 devices: cpu, cpu" in log
    # The page's lines follow the events of the main rank; each epoch is there once.
    assert len(re.findall(r"Epoch 1/2: loss \d", log)) == 1
    assert "Training finished: 2 of 2 epochs" in log
    # Three batches of two, one image for each rank: not six for each.
    assert "steps_per_epoch=3 batch_size=2" in log
    files = files_below(instance.store, f"/experiments/{project_id}_digits/{task_id}_RT-DETRv2")
    info = read_json(instance.store, files["experiment_info.json"])
    assert sorted(info["checkpoints"]) == ["checkpoints/best.pth", "checkpoints/last.pth"]
    assert {"model_config.yml", "app_state.json", "demo/README.md"} < set(files)


class Follower(TrainingEvents):
    """Counts, and asks to stop in the second epoch."""

    def __init__(self):
        self.flag = StopFlag()
        self.epochs = []
        self.steps = 0

    def epoch_finished(self, report):
        self.epochs.append(report.epoch)

    def step_finished(self, report):
        self.steps += 1
        if report.epoch == 1:
            self.flag.request("Stop button")


@pytest.fixture
def ranks_environment(monkeypatch):
    for name in ("PYTHONPATH", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, environment()[name])


def test_a_stop_ends_all_ranks_and_what_was_trained_is_there(tmp_path, digits, ranks_environment):
    events = Follower()
    overrides = {**tiny_values(tmp_path / "out", digits), "epoches": 100}
    outcome = train_on_devices(RECIPE, overrides, ["cpu", "cpu"], events, events.flag)
    assert outcome.result.stopped == "Stop button"
    assert events.epochs[:1] == [0]
    assert len(events.epochs) < 100
    assert outcome.result.last_epoch == events.epochs[-1]
    assert outcome.result.checkpoints["last"] == tmp_path / "out" / "last.pth"
    assert outcome.config["num_classes"] == 10


def test_the_first_failure_is_reported(tmp_path, digits, ranks_environment, caplog):
    overrides = tiny_values(tmp_path / "out", digits)
    overrides["train_dataloader"]["total_batch_size"] = 1
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(RankError, match=r"rank \d \(cpu\): .*total_batch_size = 1: cannot be div"),
    ):
        train_on_devices(RECIPE, overrides, ["cpu", "cpu"], TrainingEvents(), StopFlag())


class Broken(TrainingEvents):
    """Cannot show an epoch."""

    def epoch_finished(self, report):
        raise ValueError(f"no bar for epoch {report.epoch}")


def test_an_app_that_cannot_follow_says_why_and_the_ranks_save(tmp_path, digits, ranks_environment):
    overrides = {**tiny_values(tmp_path / "out", digits), "epoches": 100}
    with pytest.raises(ValueError, match="no bar for epoch 0"):
        train_on_devices(RECIPE, overrides, ["cpu", "cpu"], Broken(), StopFlag())
    assert (tmp_path / "out" / "last.pth").is_file()
