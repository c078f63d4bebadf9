"""Training on multiple devices: two ranks on the CPU."""

import logging
import re
from pathlib import Path

import pytest
import torch

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.misc.errors import RankError
from rtdetrv2_pytorch.src.solver.events import TrainingEvents
from rtdetrv2_pytorch.src.solver.stopping import StopFlag
from supervisely_integration.models import published_models
from supervisely_integration.task_status import TaskStatus
from supervisely_integration.train import ranks
from tests.app.real_app import TAGS, files_below, make_project, read_json, state_of
from tests.ranks import forked_launch
from tests.tiny import CONFIGS, NETWORK, SMALL_BACKBONE, tiny_values

RECIPE = CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml"


def test_app_trains_on_two_devices_from_cached_weights(instance, launch, tmp_path):
    """Cached weights need no internet access; a model without detections is not evaluated."""
    name = "RT-DETRv2-S_obj365"  # the SHA-256 of RT-DETRv2-S is known
    row = next(row for row in published_models() if row["Model"] == name)
    cache = tmp_path / "home" / ".cache" / "supervisely" / "checkpoints"
    cache.mkdir(parents=True)
    file = cache / Path(row["meta"]["model_files"]["checkpoint"]).name
    cfg = YAMLConfig(RECIPE, **merge(NETWORK, SMALL_BACKBONE), num_classes=10)
    torch.save({"ema": {"module": cfg.model.state_dict()}}, file)
    untrained = {"optimizer": {"lr": 1e-9}, "lr_warmup_scheduler": None}
    state = state_of(
        TAGS,
        hyperparameters=untrained,
        model={"source": "Pretrained models", "model_name": name},
    )
    state["options"]["model_benchmark"]["enable"] = True
    project_id = make_project(instance.store, tmp_path / "digits", name="digits")
    environment = {"CPU_RANKS": "2", "HOME": str(tmp_path / "home")}
    app = launch(instance, project_id, state, environment=environment)
    assert app.wait(400) == 0, app.log_tail(60)
    log = app.log()
    assert "Training on 2 devices: cpu, cpu" in log
    # The app's lines follow the events of the main rank; each epoch is logged once.
    assert len(re.findall(r"Epoch 1/2: loss \d", log)) == 1
    assert "Training finished: 2 of 2 epochs" in log
    # Three batches of two, one image for each rank: not six for each.
    assert "steps_per_epoch=3 batch_size=2" in log
    assert f"tuning from {file}" in log
    assert "new=0 dropped=0" in log
    files = files_below(instance.store, f"/experiments/{project_id}_digits/{app.task_id}_RT-DETRv2")
    info = read_json(instance.store, files["experiment_info.json"])
    assert (info["model_name"], info["base_checkpoint"]) == (name, file.name)
    assert sorted(info["checkpoints"]) == ["checkpoints/best.pth", "checkpoints/last.pth"]
    assert {"model_config.yml", "app_state.json", "demo/README.md"} < set(files)
    assert "Model Evaluation Report.lnk" not in files
    assert info["evaluation_metrics"] == {}
    assert info["evaluation_report_id"] is None
    status = TaskStatus.load(app.data_dir)
    assert status.state == "finished"
    assert "predict" in status.missing["evaluation_report"]


class StopInSecondEpoch(TrainingEvents):
    """Records epochs, and requests a stop in the second one."""

    def __init__(self):
        self.flag = StopFlag()
        self.epochs = []

    def epoch_finished(self, report):
        self.epochs.append(report.epoch)

    def step_finished(self, report):
        if report.epoch == 1:
            self.flag.request("Stop button")


@pytest.fixture
def forked_ranks(monkeypatch):
    """Fork the ranks, which takes less time; the app above starts them as programs."""
    monkeypatch.setattr(ranks, "elastic_launch", forked_launch)


def test_stop_ends_all_ranks_and_keeps_checkpoints(tmp_path, digits, forked_ranks):
    events = StopInSecondEpoch()
    overrides = {**tiny_values(tmp_path / "out", digits), "epoches": 100}
    trained = ranks.train_on_devices(RECIPE, overrides, ["cpu", "cpu"], events, events.flag)
    assert trained.result.stopped == "Stop button"
    assert events.epochs[:1] == [0]
    assert len(events.epochs) < 100
    assert trained.result.last_epoch == events.epochs[-1]
    assert trained.result.checkpoints["last"] == tmp_path / "out" / "last.pth"
    assert trained.config["num_classes"] == 10


def test_first_failure_is_reported(tmp_path, digits, forked_ranks, caplog):
    overrides = tiny_values(tmp_path / "out", digits)
    overrides["train_dataloader"]["total_batch_size"] = 1
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(RankError, match=r"rank \d \(cpu\): .*total_batch_size = 1: cannot be div"),
    ):
        ranks.train_on_devices(RECIPE, overrides, ["cpu", "cpu"], TrainingEvents(), StopFlag())


class FailingEvents(TrainingEvents):
    """Raises at the end of an epoch."""

    def epoch_finished(self, report):
        raise ValueError(f"no bar for epoch {report.epoch}")


def test_error_of_the_app_is_raised_after_the_ranks_saved(tmp_path, digits, forked_ranks):
    overrides = {**tiny_values(tmp_path / "out", digits), "epoches": 100}
    with pytest.raises(ValueError, match="no bar for epoch 0"):
        ranks.train_on_devices(RECIPE, overrides, ["cpu", "cpu"], FailingEvents(), StopFlag())
    assert (tmp_path / "out" / "last.pth").is_file()
