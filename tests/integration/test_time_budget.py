"""Trainings with a time budget: chosen epochs, a slower machine, a resume."""

import json

import pytest
import yaml

from rtdetrv2_pytorch.src.core.settings import Settings
from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.misc.weights import load_checkpoint
from rtdetrv2_pytorch.src.solver import DetSolver, speed_test
from rtdetrv2_pytorch.src.solver.events import TrainingEvents
from rtdetrv2_pytorch.src.solver.observers import LOG
from rtdetrv2_pytorch.src.timing.estimates import Speed
from tests.tiny import tiny_config

MILESTONES = {"lr_scheduler": {"milestones": [35, 45]}, "epoches": 50, "checkpoint_freq": 0}


class Collector(TrainingEvents):
    """Collects the epochs; `on_step` is called after every step."""

    def __init__(self, on_step=lambda report: None):
        self.epochs, self.on_step = [], on_step

    def train_started(self, plan):
        self.plan = plan

    def step_finished(self, report):
        self.on_step(report)

    def epoch_finished(self, report):
        self.epochs.append(report)


@pytest.fixture
def clock(monkeypatch):
    """A clock for the budget that only `clock.now += seconds` moves, and a known speed."""

    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    clock = Clock()
    original = speed_test.TimeBudget
    monkeypatch.setattr(
        speed_test, "TimeBudget", lambda **options: original(**options, clock=clock)
    )
    # An epoch has 3 steps and 4 validation images: 30 s and 12 s.
    speed = Speed(compute_s=8.0, load_s=2.0, val_image_s=3.0)
    monkeypatch.setattr(speed_test, "measure_speed", lambda cfg: speed)
    return clock


def fit(folder, digits, events, *, start_s=0.0, **values):
    cfg = tiny_config(folder, digits, **{**MILESTONES, **values})
    solver = DetSolver(cfg, events=events, start_s=start_s)
    events.solver = solver
    return solver.fit()


def test_epochs_are_chosen_and_kept_by_a_resume(tmp_path, digits, clock):
    """240 s without 3 %: five epochs of 42 s, and the evaluation of best.pth."""

    def stop_in_second_epoch(report):
        clock.now += 9.0
        if (report.epoch, report.step) == (1, 0):
            events.solver.stop("test")

    events = Collector(stop_in_second_epoch)
    assert fit(tmp_path, digits, events, time_budget="4m").stopped == "test"
    written = yaml.safe_load((tmp_path / "model_config.yml").read_text())
    assert (written["epoches"], written["lr_scheduler"]["milestones"]) == (5, [4, 4])
    assert any(
        line == "epoches: 50 -> 5; time_budget 4m: an epoch of 3 steps takes about 30 s, an "
        "evaluation 12 s"
        for line in events.plan.changes
    )
    state = load_checkpoint(tmp_path / "last.pth")["progress"]["time_budget"]
    assert state["elapsed_s"] == 36.0

    clock.now = 0.0  # another process
    seen = []
    events = Collector(lambda report: seen.append(events.solver))
    resume = str(tmp_path / "last.pth")
    result = fit(tmp_path, digits, events, time_budget="4m", resume=resume)
    assert (events.plan.epochs, events.plan.first_epoch) == (5, 1)
    assert [epoch.epoch for epoch in events.epochs] == [1, 2, 3, 4]
    assert (result.stopped, result.last_epoch) == (None, 4)
    assert load_checkpoint(resume)["progress"]["time_budget"]["elapsed_s"] == 36.0


def test_slower_training_skips_epochs_and_keeps_its_last_one(tmp_path, digits, clock, caplog):
    """Steps of 40 s instead of 10 s."""

    def slow(report):
        clock.now += 40.0

    events = Collector(slow)
    with caplog.at_level("WARNING"):
        result = fit(tmp_path, digits, events, time_budget="6m")
    assert events.plan.epochs == 8
    ran = [epoch.epoch for epoch in events.epochs]
    assert ran[0] == 0 and ran[-1] == 7 and len(ran) < 5
    assert "are skipped, so that the last" in caplog.text
    assert clock.now <= 1.05 * 360
    assert (result.stopped, result.last_epoch) == (None, 7)
    assert events.epochs[-1].lr < 0.5 * events.epochs[0].lr  # after both milestones
    assert load_checkpoint(tmp_path / "last.pth")["last_epoch"] == 7
    logged = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [e["epoch"] for e in logged if e["event"] == "epoch"] == ran


def test_speed_is_measured_without_changing_the_training(tmp_path, digits, monkeypatch):
    """The real measurement; the losses of the first steps do not depend on it."""
    # Another number of epochs would change the warm-up.
    monkeypatch.setattr(speed_test, "fit_budget", lambda values, epochs, why: [why])
    losses = []

    def two_steps(report):
        losses.append(report.loss)
        if report.step == 1:
            events.solver.stop()

    events = Collector(two_steps)
    fit(tmp_path / "plain", digits, events, start_s=None)
    fit(tmp_path / "timed", digits, events, start_s=None, time_budget="1h")
    assert losses[:2] == losses[2:]
    lines = [
        line for line in events.plan.changes if line.startswith("time_budget 1h: an epoch of 3 ")
    ]
    assert len(lines) == 1


def test_invalid_budget_is_rejected():
    with pytest.raises(ConfigError, match="time_budget = '1 day': give minutes as 30m, or hours"):
        Settings(time_budget="1 day")
