"""Trackers: the stored values of W&B (offline) and MLflow (files), resume, and failures."""

import json
import logging
import math
import struct
import sys
import threading
import time
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image

from rtdetrv2_pytorch.src.core import ConfigError, YAMLConfig
from rtdetrv2_pytorch.src.solver.events import FitResult, TrainingPlan
from rtdetrv2_pytorch.src.trackers import Trackers, check_installed, following
from tests.tiny import CONFIGS
from tests.unit.solver.test_observers import epoch_report, evaluation, step_report

S = CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml"


def plan(folder):
    return TrainingPlan(
        epochs=2, first_epoch=0, steps_per_epoch=10, batch_size=4, num_train_images=6,
        num_val_images=4, class_names=["cat", "a long name"], image_size_hw=(64, 64), device="CPU",
        precision="float32", output_dir=folder, schedule=[], changes=[],
    )  # fmt: skip


def config(folder, *loggers, **values):
    """Return the configuration of a run whose training has written its files."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    (folder / "model_config.yml").write_text("epoches: 2\n")
    (folder / "best.pth").write_bytes(b"weights")
    (folder / "report.html").write_text("<p>report</p>")
    Image.new("RGB", (8, 6), (10, 200, 30)).save(folder / "pictures" / "val_epoch0001.jpg")
    return YAMLConfig(S, output_dir=str(folder), loggers=list(loggers), **values)


def follow(cfg):
    """Send the events of a short training."""
    folder = cfg.output_dir
    with Trackers(cfg) as trackers:
        trackers.train_started(plan(folder))
        trackers.step_finished(step_report())
        trackers.step_finished(step_report(global_step=3, is_logged=False))
        trackers.epoch_finished(epoch_report())
        trackers.log_image("val/detections", folder / "pictures" / "val_epoch0001.jpg", 2)
        result = FitResult(1, evaluation(), None, 1, None, {"best": folder / "best.pth"})
        trackers.log_results(result, folder / "report.html")


def run_ids(cfg):
    return json.loads((cfg.output_dir / "trackers.json").read_text())


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """MLflow with files, as for a user without a server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "cells")
    from mlflow.tracking import MlflowClient

    return MlflowClient()


def test_mlflow_stores_values_files_and_configuration(tmp_path, mlflow):
    cfg = config(tmp_path / "my run", "mlflow")
    follow(cfg)
    run = mlflow.get_run(run_ids(cfg)["mlflow"])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "my run"
    assert mlflow.get_experiment(run.info.experiment_id).name == "cells"

    def history(name):
        return [(m.step, m.value) for m in mlflow.get_metric_history(run.info.run_id, name)]

    assert history("train/loss") == [(2, 3.5)]
    assert history("train/lr") == [(2, 1e-4)]
    assert history("val/AP") == history("val/AP50") == [(2, 0.25)]
    assert history("val_AP/cat") == [(2, 0.3)]
    assert history("best/AP") == [(2, 0.25)]
    assert "train/grad_norm" not in run.data.metrics  # infinite
    assert "val_AP/a long name" not in run.data.metrics  # NaN
    assert run.data.params["optimizer.lr"] == str(cfg.yaml_cfg["optimizer"]["lr"])
    assert run.data.params["epoches"] == str(cfg.epoches)
    paths = {
        file.path
        for folder in (None, "pictures", "checkpoints")
        for file in mlflow.list_artifacts(run.info.run_id, folder)
    }
    assert {"model_config.yml", "report.html", "pictures/val_epoch0001.jpg"} <= paths
    artifact = mlflow.download_artifacts(run.info.run_id, "checkpoints/best.pth")
    assert open(artifact, "rb").read() == b"weights"  # noqa: SIM115, PTH123


def test_a_resumed_training_continues_its_run(tmp_path, mlflow):
    cfg = config(tmp_path / "run", "mlflow")
    follow(cfg)
    resume = str(tmp_path / "run" / "last.pth")
    again = config(tmp_path / "run", "mlflow", resume=resume, epoches=99)
    follow(again)
    elsewhere = config(tmp_path / "other", "mlflow", resume=resume)
    follow(elsewhere)
    new = config(tmp_path / "new", "mlflow")
    follow(new)
    ids = [run_ids(each)["mlflow"] for each in (cfg, again, elsewhere, new)]
    assert ids[0] == ids[1] == ids[2] != ids[3]
    assert len(mlflow.get_metric_history(ids[0], "val/AP")) == 3
    assert mlflow.get_run(ids[0]).data.params["epoches"] == str(cfg.epoches)
    assert mlflow.get_run(ids[0]).info.status == "FINISHED"


def test_a_failed_training_is_marked(tmp_path, mlflow):
    cfg = config(tmp_path / "run", "mlflow")
    with pytest.raises(RuntimeError, match="no memory"), Trackers(cfg) as trackers:
        trackers.train_started(plan(tmp_path))
        raise RuntimeError("no memory")
    assert mlflow.get_run(run_ids(cfg)["mlflow"]).info.status == "FAILED"


def wandb_records(folder):
    """Read the file of an offline run: a header of 7 bytes, then records as in LevelDB's log."""
    from wandb.proto.wandb_internal_pb2 import Record

    [file] = folder.glob("wandb/offline-run-*/*.wandb")
    content, place, parts = file.read_bytes(), 7, b""
    while place < len(content):
        left = 32768 - place % 32768
        if left < 7:  # the rest of a block
            place += left
            continue
        size, kind = struct.unpack("<HB", content[place + 4 : place + 7])  # after the checksum
        parts += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # the whole record, or its last part
            record = Record()
            record.ParseFromString(parts)
            yield record.WhichOneof("record_type"), record
            parts = b""


@pytest.mark.slow
def test_wandb_stores_values_files_and_configuration_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "cells")
    cfg = config(tmp_path / "run", "wandb")
    follow(cfg)
    for _ in range(50):  # W&B's own process writes the file; the last record is the exit
        records = list(wandb_records(cfg.output_dir))
        if any(kind == "exit" for kind, _ in records):
            break
        time.sleep(0.2)
    [run] = [record.run for kind, record in records if kind == "run"]
    assert (run.run_id, run.project, run.display_name) == (run_ids(cfg)["wandb"], "cells", "run")
    values = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert values["optimizer"] == cfg.yaml_cfg["optimizer"]
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
        for items in (r.history.item for kind, r in records if kind == "history")
    ]
    [step] = [row for row in rows if "train/loss" in row]
    assert (step["train/loss"], step["train/lr"], step["step"]) == (3.5, 1e-4, 2)
    [epoch] = [row for row in rows if "val/AP" in row]
    assert (epoch["val/AP"], epoch["val_AP/cat"], epoch["epoch"]) == (0.25, 0.3, 2)
    [image] = [row for row in rows if "images/val/detections/width" in row]
    assert (image["images/val/detections/width"], image["epoch"]) == (8, 2)
    [report] = [row["report/path"] for row in rows if "report/path" in row]
    [stored] = cfg.output_dir.glob(f"wandb/offline-run-*/files/{report}")
    assert stored.read_text() == "<p>report</p>"
    axes = {r.metric.glob_name: r.metric.step_metric for kind, r in records if kind == "metric"}
    assert (axes["train/*"], axes["val/*"]) == ("step", "epoch")
    artifacts = [r.artifact for kind, r in records if kind == "artifact"]
    assert [each.type for each in artifacts] == ["configuration", "model"]
    assert [e.path for each in artifacts for e in each.manifest.contents] == [
        "model_config.yml",
        "best.pth",
    ]
    [exit_record] = [r.exit for kind, r in records if kind == "exit"]
    assert exit_record.exit_code == 0


class FakeTask:
    """The part of ClearML's Task that its documentation describes and the tracker uses."""

    def __init__(self, options):
        self.options, self.calls, self.id = options, [], "task-1"

    def __getattr__(self, name):
        return lambda *args, **options: self.calls.append((name, args, options)) or self


@pytest.fixture
def clearml(monkeypatch):
    tasks = []

    class Task:
        @staticmethod
        def init(**options):
            tasks.append(FakeTask(options))
            return tasks[-1]

    module = ModuleType("clearml")
    module.Task = Task
    monkeypatch.setitem(sys.modules, "clearml", module)
    monkeypatch.setattr(following.importlib.util, "find_spec", lambda name: SimpleNamespace())
    return tasks


def test_clearml_gets_values_files_and_configuration(tmp_path, clearml):
    cfg = config(tmp_path / "run", "clearml", run_name="cells, large")
    follow(cfg)
    [task] = clearml
    assert task.options["task_name"] == "cells, large"
    assert task.options["project_name"] == "rtdetrv2"
    assert task.options["continue_last_task"] is False
    scalars = {args: opts for name, args, opts in task.calls if name == "report_scalar"}
    assert scalars["train", "loss"] == {"value": 3.5, "iteration": 2}
    assert scalars["val_AP", "cat"] == {"value": 0.3, "iteration": 2}
    [image] = [(args, opts) for name, args, opts in task.calls if name == "report_image"]
    assert image[0] == ("val", "detections")
    assert image[1]["iteration"] == 2
    uploaded = [args for name, args, _ in task.calls if name == "upload_artifact"]
    assert uploaded == [("model_config.yml",), ("report.html",), ("best.pth",)]
    assert task.calls[-1][0] == "close"

    follow(config(tmp_path / "run", "clearml", resume=str(tmp_path / "run" / "last.pth")))
    assert clearml[1].options["continue_last_task"] == "task-1"
    assert ("set_initial_iteration", (0,), {}) in clearml[1].calls


class Broken:
    """A tracker whose methods fail from a certain one on."""

    def __init__(self, failing, calls):
        self._failing, self._calls = failing, calls

    def __getattr__(self, name):
        def call(*args, **options):
            self._calls.append(name)
            if name == self._failing:
                raise OSError("network is unreachable\nsecond line")
            return "id"

        return call


@pytest.mark.parametrize("failing", ["start", "log", "log_file", "finish"])
def test_a_failing_tracker_warns_once_and_the_others_continue(
    tmp_path, mlflow, monkeypatch, caplog, failing
):
    calls, original = [], following._open
    monkeypatch.setattr(
        following,
        "_open",
        lambda name, folder: (
            Broken(failing, calls) if name == "clearml" else original(name, folder)
        ),
    )
    cfg = config(tmp_path / "run", "clearml", "mlflow")
    follow(cfg)
    [warning] = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warning == "clearml is disabled, training continues: network is unreachable"
    assert calls.count(failing) == 1
    assert calls[-1] == failing
    history = mlflow.get_metric_history(run_ids(cfg)["mlflow"], "val/AP")
    assert [metric.value for metric in history] == [0.25]


def test_a_hanging_tracker_does_not_delay_the_training(tmp_path, monkeypatch, caplog):
    release = threading.Event()
    tracker = SimpleNamespace(start=lambda info: release.wait(60))
    monkeypatch.setattr(following, "_open", lambda name, folder: tracker)
    monkeypatch.setattr(following, "_FINISH_S", 0.05)
    follow(config(tmp_path / "run", "mlflow"))
    release.set()
    assert "mlflow is disabled, training continues: no answer for 0 s" in caplog.text


def test_a_missing_package_is_one_sentence_with_the_extra(monkeypatch):
    monkeypatch.setattr(following.importlib.util, "find_spec", lambda name: None)
    check_installed(["tensorboard"])
    with pytest.raises(
        ConfigError,
        match=r"loggers = \['tensorboard', 'wandb'\]: the package wandb is not installed; install "
        r"it with pip install 'rtdetrv2\[wandb\]', or remove wandb from loggers$",
    ):
        check_installed(["tensorboard", "wandb"])


def test_loggers_choose_tensorboard_too(tmp_path):
    assert YAMLConfig(S, output_dir=str(tmp_path / "a")).settings.loggers == ("tensorboard",)
    cfg = YAMLConfig(S, output_dir=str(tmp_path / "b"), loggers=["mlflow"])
    assert cfg.writer is None
    assert not (tmp_path / "b").exists()
    with pytest.raises(ConfigError, match="loggers.*'tensorboard', 'wandb', 'mlflow' or 'clearml'"):
        YAMLConfig(S, loggers=["neptune"])


def test_without_a_started_training_nothing_happens(tmp_path):
    with Trackers(config(tmp_path / "run", "mlflow")) as trackers:
        trackers.epoch_finished(epoch_report())
    assert not (tmp_path / "run" / "trackers.json").exists()
    assert math.isinf(step_report().grad_norm)
