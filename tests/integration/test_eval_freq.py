"""Trainings that evaluate only some epochs."""

import json

import pytest
import torch

from rtdetrv2_pytorch.src.misc.weights import load_checkpoint
from rtdetrv2_pytorch.src.report.training_report import write_report_of
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver.events import TrainingEvents
from rtdetrv2_pytorch.src.solver.observers import LOG
from tests.tiny import tiny_config


class StopInEpoch(TrainingEvents):
    """Stops a training after the first step of an epoch."""

    def __init__(self, epoch):
        self.epoch, self.solver = epoch, None

    def step_finished(self, report):
        if (report.epoch, report.step) == (self.epoch, 0):
            self.solver.stop("test")


def fit(folder, digits, *, stop=None, **values):
    events = TrainingEvents() if stop is None else StopInEpoch(stop)
    cfg = tiny_config(folder, digits, epoches=3, **values)
    solver = DetSolver(cfg, events=events)
    events.solver = solver
    return cfg, solver.fit()


def epochs(folder):
    lines = map(json.loads, (folder / LOG).read_text().splitlines())
    return [line for line in lines if line["event"] == "epoch"]


@pytest.fixture(scope="module")
def always(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("always")
    fit(folder, digits)
    return folder


def assert_equal_weights(first, second):
    one, other = (load_checkpoint(folder / "last.pth") for folder in (first, second))
    for kind in ("model", "ema"):
        states = [c[kind].get("module", c[kind]) for c in (one, other)]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_interrupted_training_evaluates_the_same_epochs(always, tmp_path, digits):
    """Stop in the middle of an epoch that is not evaluated, and resume."""
    _, result = fit(tmp_path, digits, eval_freq=2, stop=0)
    assert (result.best_epoch, result.stopped) == (-1, "test")
    cfg, result = fit(tmp_path, digits, eval_freq=2, resume=str(tmp_path / "last.pth"), report=True)
    assert_equal_weights(always, tmp_path)
    expected, found = epochs(always), epochs(tmp_path)
    assert [line["epoch"] for line in found] == [0, 1, 2]
    assert [line.get("AP") for line in found] == [None, *(line["AP"] for line in expected[1:])]
    losses = [[line["train_loss"] for line in lines] for lines in (found, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert [line["is_best"] for line in found][0] is False
    assert result.best_epoch in (1, 2)
    best = load_checkpoint(tmp_path / "best.pth")
    assert best["last_epoch"] == result.best_epoch
    assert best["metrics"]["AP"] == found[result.best_epoch]["AP"] == result.best.stats["AP"]
    numbered = load_checkpoint(tmp_path / "checkpoint0000.pth")
    assert "metrics" not in numbered and "thresholds" not in numbered
    page = write_report_of(cfg, result).read_text()
    assert "Finished: 3 of 3 epochs" in page


def test_patience_counts_epochs_and_stops_after_an_evaluation(tmp_path, digits, monkeypatch):
    monkeypatch.setattr("rtdetrv2_pytorch.src.solver.best.BestSoFar.update", _never_better)
    cfg = tiny_config(tmp_path, digits, epoches=9, eval_freq=3, patience=2)
    result = DetSolver(cfg).fit()
    assert result.last_epoch == 2  # two epochs without improvement, but no evaluation before
    assert result.stopped == "no better AP for 3 epochs"


def _never_better(best, epoch, evaluation):
    best.stale_epochs = epoch - best.epoch
    return False
