"""Reports for training events."""

import math

import pytest
import torch

from rtdetrv2_pytorch.src.solver import telemetry
from rtdetrv2_pytorch.src.solver.events import TrainingEvents
from rtdetrv2_pytorch.src.solver.progress import EpochProgress
from rtdetrv2_pytorch.src.solver.run import TrainingRun
from rtdetrv2_pytorch.src.solver.telemetry import StepReporter, training_plan
from tests.tiny import tiny_config


class Collector(TrainingEvents):
    def __init__(self):
        self.reports = []

    def step_finished(self, report):
        self.reports.append(report)


def test_step_reports_and_their_log_interval(tmp_path, digits, monkeypatch):
    run = TrainingRun.create(tiny_config(tmp_path, digits, print_freq=4, epoches=3))
    clock = iter(range(100))
    monkeypatch.setattr(telemetry.time, "perf_counter", lambda: 0.1 * next(clock))
    events = Collector()
    reporter = StepReporter(run, events)
    progress = EpochProgress(epoch=1, num_steps=10)
    for step in range(10):
        progress.add({"a": torch.tensor(float(step))})
        progress.step += 1
        progress.timed_steps += 1
        progress.total_s += 2.0
        progress.data_s += 0.5
        progress.images += 4
        reporter(progress)
    reports = events.reports
    assert [r.step for r in reports] == list(range(10))
    assert [r.step for r in reports if r.is_logged] == [0, 4, 8, 9]
    assert [r.loss for r in reports if r.is_logged] == [0.0, 4.0, 8.0, 9.0]
    assert reports[1].loss == 0.0  # not read again within half a second
    assert not reports[1].is_fresh
    last = reports[-1]
    assert (last.step_s, last.data_s, last.images_per_s) == (2.0, 0.5, 2.0)
    # One more epoch, two evaluations, and that of best.pth: 4 images instead of 6, each at a third
    # of the cost of training.
    assert last.eta_s == pytest.approx(10 * 2.0 + 3 * (4 / 6 * 10 * 2.0 / 3))
    assert math.isnan(last.grad_norm)


def test_remaining_time_is_estimated_over_all_epochs(tmp_path, digits):
    run = TrainingRun.create(tiny_config(tmp_path, digits, epoches=4))
    num_steps = len(run.train_loader)
    first = EpochProgress(0, num_steps, step=num_steps, timed_steps=num_steps)
    first.total_s = 4.0 * num_steps
    run.pace.add(first, eval_s=9.0)
    run.epoch = 1
    now = EpochProgress(1, num_steps, step=1, timed_steps=1, total_s=1.0)
    step_s = (4.0 * num_steps + 1.0) / (num_steps + 1)
    events = Collector()
    StepReporter(run, events)(now)
    assert events.reports[0].eta_s == pytest.approx((3 * num_steps - 1) * step_s + 4 * 9.0)


@pytest.mark.parametrize(
    ("eval_freq", "epochs", "evaluated"),
    [(1, 3, [0, 1, 2]), (2, 5, [1, 3, 4]), (3, 6, [2, 5]), (10, 4, [3])],
)
def test_remaining_time_includes_the_evaluations_that_are_due(
    tmp_path, digits, eval_freq, epochs, evaluated
):
    cfg = tiny_config(tmp_path, digits, epoches=epochs, eval_freq=eval_freq)
    run = TrainingRun.create(cfg)
    assert [epoch for epoch in range(epochs) if run.is_evaluated(epoch)] == evaluated
    run.pace.evaluations, run.pace.eval_s, run.pace.steps, run.pace.train_s = 1, 100.0, 1, 2.0
    events = Collector()
    StepReporter(run, events)(EpochProgress(0, num_steps=3))
    assert events.reports[0].eta_s == epochs * 3 * 2.0 + 100.0 * (len(evaluated) + 1)


def test_losses_are_read_every_half_second(tmp_path, digits, monkeypatch):
    run = TrainingRun.create(tiny_config(tmp_path, digits, print_freq=100))
    clock = iter([0.0, 0.3, 0.6])
    monkeypatch.setattr(telemetry.time, "perf_counter", lambda: next(clock))
    events = Collector()
    reporter = StepReporter(run, events)
    progress = EpochProgress(epoch=0, num_steps=10)
    for step in range(3):
        progress.add({"a": torch.tensor(float(step))})
        progress.step += 1
        reporter(progress)
    assert [r.loss for r in events.reports] == [0.0, 0.0, 2.0]


def test_training_plan_contains_the_resolved_schedule(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits, epoches=4, grad_accum_steps=2)
    run = TrainingRun.create(cfg)
    run.epoch = 1
    plan = training_plan(run, changes=["x"])
    assert (plan.epochs, plan.first_epoch, plan.steps_per_epoch, plan.batch_size) == (4, 1, 3, 4)
    assert (plan.num_train_images, plan.num_val_images) == (6, 4)
    assert plan.image_size_hw == (64, 96)
    assert plan.precision == "float32"
    assert plan.changes == ["x"]
    assert plan.schedule[0].startswith("learning rate 0.0001; MultiStepLR milestones [1000]")
    assert plan.schedule[1].startswith("EMA decay ")
    assert "RandomPhotometricDistort" in plan.schedule[2]
    assert plan.schedule[2].endswith(" disabled from epoch 4")
    plain = tiny_config(tmp_path, digits, epoches=4, augmentation="none")
    schedule = training_plan(TrainingRun.create(plain), changes=[]).schedule
    assert len(schedule) == len(plan.schedule) - 1  # nothing to disable
