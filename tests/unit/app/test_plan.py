"""The plan of a training: presets for a CPU, measured speed, estimated time."""

import io
import json
import random
import threading
from dataclasses import asdict
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
import yaml

from rtdetrv2.training.data_extent import DataExtent
from rtdetrv2_pytorch.src.timing.budget import TimeBudget
from rtdetrv2_pytorch.src.timing.estimates import EpochTime, Speed
from supervisely_integration.models import find_base_config
from supervisely_integration.paths import HYPERPARAMETERS
from supervisely_integration.train.hyperparameters import complete_hyperparameters
from supervisely_integration.train.plan import page_plan, presets, probe
from supervisely_integration.train.plan.estimate import (
    Estimate,
    estimate,
    format_minutes,
)
from supervisely_integration.train.plan.probe import ProbeTask
from supervisely_integration.train.plan.reserve import reserve_seconds
from supervisely_integration.train.plan.runner import ProbeRunner
from supervisely_integration.train.run_config import check_hyperparameters
from tests.app.real_app import TINY

BASE = find_base_config("rtdetrv2_r18vd_120e_coco.yml")
WAIT_S = 120


def task_of(**changes):
    values = complete_hyperparameters({**TINY, **changes})
    return ProbeTask(base_config=str(BASE), hyperparameters=values, longest_side=96, device="cpu")


# --- presets -------------------------------------------------------------------------------


@pytest.mark.parametrize("most_objects", [3, 80])
def test_preset_text_has_the_preset_values_and_the_comments(most_objects):
    extent = DataExtent(longest_side=1000, max_boxes=most_objects, mean_boxes=most_objects - 1)
    values = presets.cpu_values(extent, is_from_scratch=most_objects == 3)
    text = presets.as_text({"epoches": 12, **values})
    found = check_hyperparameters(text, BASE)
    assert found == check_hyperparameters(presets.completed({"epoches": 12, **values}), BASE)
    chosen = ("epoches", "batch_size", "eval_spatial_size", "num_workers", "lr_scheduler")
    assert [found[key] for key in chosen[:4]] == [12, 4, [320, 320], 1]
    assert found["lr_scheduler"]["type"] == "FlatCosineLR"
    assert found["optimizer"]["lr"] == (0.0002 if most_objects == 3 else 0.0001)
    assert ("RTDETRTransformerv2" in found) == (most_objects == 3)
    comments = [line for line in HYPERPARAMETERS.read_text().splitlines() if line.startswith("#")]
    assert [line for line in text.splitlines() if line in comments] == comments


def test_text_of_the_defaults_is_the_file():
    defaults = yaml.safe_load(HYPERPARAMETERS.read_text())
    assert presets.as_text(defaults) == HYPERPARAMETERS.read_text()


@pytest.mark.parametrize(
    ("checkpoint", "num_train", "classes", "chosen"),
    [
        (None, 100, ["cat", "dog"], ("none", 0.5)),
        (None, 100, ["cat"], ("none", None)),
        (None, 10, ["cat", "dog"], (None, None)),
        ("best.pth", 100, ["cat", "dog"], (None, None)),
    ],
)
def test_page_pastes_objects_in_short_trainings_from_random_weights(
    monkeypatch, tmp_path, checkpoint, num_train, classes, chosen
):
    # 10 images: 331 epochs.
    extent = DataExtent(longest_side=640, max_boxes=9, mean_boxes=3.0)
    monkeypatch.setattr(page_plan, "project_extent", lambda *_: extent)
    monkeypatch.setattr(page_plan, "split_sizes", lambda *_: (num_train, 2))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    texts = [HYPERPARAMETERS.read_text()]
    gui = MagicMock()
    gui.training_process.card.is_locked.return_value = True
    gui.model_selector.get_checkpoint_name.return_value = checkpoint
    gui.classes_selector.get_selected_classes.return_value = classes
    gui.hyperparameters_selector.get_hyperparameters.side_effect = lambda: texts[-1]
    gui.hyperparameters_selector.set_hyperparameters.side_effect = texts.append
    page_plan.PagePlan(gui, tmp_path).begin()
    values = yaml.safe_load(texts[-1])
    assert len(texts) == 2
    assert (values["augmentation"], values["balanced_paste"]) == chosen


@pytest.mark.parametrize(
    ("epochs", "fitting", "is_measured", "why"),
    [
        (12, 12, True, "so that a training ends in about 8 min"),
        (3, 12, True, "so that a training ends in about 2 min"),
        (24, 12, True, "and end in about 16 min on this CPU, 12 epochs in about 8 min"),
        (
            *(12, 12, False),
            "so that a training ends in about 8 min (2.5 s per step, not measured yet)",
        ),
    ],
)
def test_reason_of_the_presets(epochs, fitting, is_measured, why):
    one = Estimate(epochs=1, steps=10, step_s=2.5, time=EpochTime(25.0, 15.0))
    text = presets.reason(
        [320, 256], epochs=epochs, fitting=fitting, one=one, is_measured=is_measured
    )
    start = f"No GPU: 320x256 pixels and {epochs} epochs are preset "
    assert text == f"{start}{why}. Use a GPU for the full recipe."


# --- estimate ------------------------------------------------------------------------------


def test_estimate_by_hand():
    speed = Speed(compute_s=2.0, load_s=0.5, val_image_s=0.5)
    values = {"epoches": 6, "batch_size": 4, "num_workers": 0}
    # 43 images are 10 batches of 4: 10 x 2.5 s + 30 x 0.5 s = 40 s an epoch.
    found = estimate(speed, values, num_train=43, num_val=30, device="cpu")
    assert (found.steps, found.step_s, found.epoch_s, found.seconds) == (10, 2.5, 40.0, 240.0)
    assert str(found) == "about 4 min (6 epochs of 10 steps at 2.5 s, evaluation included)"
    limited = estimate(speed, {**values, "patience": 3}, num_train=43, num_val=30, device="cpu")
    assert str(limited).startswith("at most about 4 min (")


def test_estimate_of_several_gpus():
    speed = Speed(compute_s=1.0, load_s=0.0, val_image_s=0.2)
    values = {"epoches": 1, "batch_size": 16, "num_workers": 2}
    found = estimate(speed, values, num_train=5, num_val=40, device="cuda:0", num_ranks=4)
    # One step with all five images; each rank validates 10 images.
    assert (found.steps, found.epoch_s) == (1, 3.0)


def test_estimate_with_fewer_evaluations_and_a_time_budget():
    speed = Speed(compute_s=2.0, load_s=0.5, val_image_s=0.5)
    values = {"epoches": 6, "batch_size": 4, "num_workers": 0, "eval_freq": 4}
    # 25 s an epoch, and two evaluations of 15 s.
    found = estimate(speed, values, num_train=43, num_val=30, device="cpu")
    assert (found.seconds, found.time) == (180.0, EpochTime(25.0, 15.0, 4))
    found = estimate(speed, {**values, "time_budget": "5m"}, num_train=43, num_val=30, device="cpu")
    # 276 s without 3 % and the evaluation of best.pth: 225 s, and three evaluations.
    assert (found.epochs, found.seconds) == (9, 270.0)
    values = {**values, "time_budget": "5m"}
    found = estimate(speed, values, num_train=43, num_val=30, device="cpu", reserve_s=100)
    assert (found.epochs, found.seconds) == (5, 155.0)  # 176 s: four epochs and their
    # evaluation take 115 s, the next one 40 s


def selections(*names):
    return SimpleNamespace(
        **{
            f"get_{name}_checkbox_value": lambda name=name: name in names
            for name in ("model_benchmark", "speedtest", "export_onnx", "export_tensorrt")
        }
    )


@pytest.mark.parametrize(
    ("selected", "values", "seconds"),
    [
        ([], {}, 60),
        (["model_benchmark", "export_onnx"], {}, 330),
        (["model_benchmark", "speedtest"], {}, 420),
        (["speedtest"], {}, 60),  # of the report
        (["export_onnx"], {"export_int8": True}, 450),
        ([], {"export_int8": True}, 60),
        (["export_tensorrt"], {}, 660),
        (["export_tensorrt"], {"time_budget": "10m"}, 300),  # half of it
        ([], {"label_radar": True}, 60 + 3540 / 2),
    ],
)
def test_reserve_for_what_follows_a_training(selected, values, seconds):
    page, values = selections(*selected), {"time_budget": "1h", **values}
    assert reserve_seconds(page, values) == seconds
    assert reserve_seconds(page, {**values, "time_budget": None}) == 0


@pytest.mark.parametrize(
    ("devices", "text"),
    [
        # 10 min without 3 %, a minute for the upload and half of the rest for the radar: 252 s, of
        # which 2 s are the evaluation of best.pth; an epoch takes 10 s and 2 s.
        (["cpu"], "about 4 min (20 epochs of 10 steps at 1 s"),
        # Three quarters of the rest, and an evaluation of 0.67 s.
        (["cuda:0", "cuda:1", "cuda:2"], "about 2 min (10 epochs of 10 steps at 1 s"),
    ],
)
def test_page_estimates_what_the_reserve_leaves(monkeypatch, tmp_path, devices, text):
    class Measured:
        def request(self, task, show, failed):
            show(Speed(compute_s=1.0, load_s=0.0, val_image_s=0.2))

    extent = DataExtent(longest_side=640, max_boxes=9, mean_boxes=3.0)
    monkeypatch.setattr(page_plan, "project_extent", lambda *_: extent)
    monkeypatch.setattr(page_plan, "split_sizes", lambda *_: (40, 10))
    monkeypatch.setattr(page_plan, "ProbeRunner", Measured)
    gui, selector = MagicMock(), MagicMock(**vars(selections()))
    selector.get_hyperparameters = lambda: "{time_budget: 10m, label_radar: true, batch_size: 4}"
    gui.hyperparameters_selector = selector
    gui.training_process.get_device.return_value = devices[0]
    gui.training_process.get_devices.return_value = devices
    gui.training_process.card.is_locked.return_value = False
    page_plan.PagePlan(gui, tmp_path).begin()
    shown = gui.training_process.estimate_text.set.call_args.args[0]
    assert shown.startswith(f"Takes {text}")
    assert "label radar and upload take additional time" in shown


def test_label_radar_on_one_of_three_devices_gets_three_times_the_time_of_the_training():
    values = {"time_budget": "1h", "label_radar": True}
    assert reserve_seconds(selections(), values, num_ranks=3) == 60 + 3540 * 3 / 4


def test_training_on_eight_devices_keeps_a_ninth_of_half_a_short_budget():
    values = {"time_budget": "10m", "label_radar": True}
    reserved = reserve_seconds(selections("export_tensorrt"), values, num_ranks=8)
    assert reserved == pytest.approx(600 - 300 / 9)
    budget = TimeBudget(seconds=600, start_s=0, reserve_s=reserved, clock=lambda: 0)
    assert budget.reserve_s == reserved  # is not cut


def test_durations():
    assert [format_minutes(s) for s in (12.4, 60, 3540, 12_000)] == [
        *("12 s", "1 min", "59 min", "3 h 20 min")
    ]


# --- measurement ---------------------------------------------------------------------------


def test_timed_batches_are_small_on_a_cpu_and_scaled(monkeypatch):
    def measure_speed(cfg):
        _, record = cfg.train_dataset.load_readable(0)
        assert record.image.shape[1:] == (72, 96)
        assert (cfg.train_dataloader.batch_size, len(cfg.train_dataloader)) == (4, 4)
        assert (cfg.val_dataloader.batch_size, len(cfg.val_dataloader)) == (4, 4)
        assert cfg.train_dataloader.num_workers == 0
        assert cfg.train_dataloader.collate_fn.scales is None
        assert (cfg.settings.cache, cfg.settings.compile) == ("none", False)
        assert cfg.yaml_cfg["eval_spatial_size"] == TINY["eval_spatial_size"]
        return Speed(compute_s=1.0, load_s=0.5, val_image_s=0.1)

    monkeypatch.setattr(probe, "measure_speed", measure_speed)
    task = task_of(batch_size=10, num_workers=4, cache="ram", compile=True)
    assert probe.measure(task) == Speed(compute_s=2.5, load_s=1.25, val_image_s=0.1)


def test_ranks_share_a_batch(monkeypatch):
    sizes = []

    def measure_speed(cfg):
        sizes.append((cfg.train_dataloader.batch_size, cfg.val_dataloader.batch_size))
        return Speed(1.0, 0.5, 0.1)

    monkeypatch.setattr(probe, "measure_speed", measure_speed)
    values = complete_hyperparameters({**TINY, "batch_size": 12})
    task = ProbeTask(
        base_config=str(BASE), hyperparameters=values, longest_side=32, device="cpu", num_ranks=4
    )
    assert probe.measure(task) == Speed(1.0, 0.5, 0.1)
    assert sizes == [(3, 4)]


class Answers:
    """The callbacks of a request."""

    def __init__(self):
        self.found, self.failures = [], []
        self._has_ended = threading.Event()

    def then(self, speed):
        self.found.append(speed)
        self._has_ended.set()

    def failed(self, reason):
        self.failures.append(reason)
        self._has_ended.set()

    def wait(self):
        assert self._has_ended.wait(WAIT_S)
        return self


def request(runner, task):
    answers = Answers()
    runner.request(lambda: task, answers.then, answers.failed)
    return answers


def test_process_measures_the_speed_without_side_effects():
    runner, task = ProbeRunner(), task_of()
    before = (random.getstate(), torch.get_rng_state())
    first = request(runner, task)
    second = request(runner, task)  # takes over the process of the first
    (speed,) = second.wait().found
    assert first.found == first.failures == second.failures == []
    assert 0 < speed.compute_s < WAIT_S
    assert 0 < speed.load_s < WAIT_S
    assert 0 < speed.val_image_s < WAIT_S
    assert before[0] == random.getstate()
    assert torch.equal(before[1], torch.get_rng_state())
    assert request(runner, task).wait().found == [speed]  # known


def test_canceled_process_ends_and_answers_nothing():
    runner = ProbeRunner()
    answers = request(runner, task_of())
    while runner._probe is None:
        pass
    process = runner._probe._process
    runner.cancel()
    assert process.wait(WAIT_S) == -9
    assert answers.found == answers.failures == []


def test_process_ends_with_the_app(monkeypatch):
    codes = []
    monkeypatch.setattr(probe.os, "_exit", codes.append)
    monkeypatch.setattr(probe.sys, "stdin", io.StringIO(""))  # closed, as the app has ended
    probe._exit_with_the_app()
    assert codes == [1]


def test_error_of_the_process_is_the_reason(monkeypatch, capsys):
    monkeypatch.setattr(probe, "_exit_with_the_app", lambda: None)
    monkeypatch.setattr(probe.logging, "disable", lambda level: None)
    probe.main(json.dumps(asdict(task_of(eval_spatial_size=[50, 64]))))
    (message,) = json.loads(capsys.readouterr().out).values()
    assert message.startswith("hyperparameters: eval_spatial_size[0] = 50: ")
