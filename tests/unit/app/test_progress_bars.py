"""Training events as progress bars and log lines."""

import dataclasses
import logging
from pathlib import Path

import pytest

from rtdetrv2_pytorch.src.data.metrics.evaluator import STAT_NAMES, Evaluation
from rtdetrv2_pytorch.src.data.metrics.operating_point import OperatingPoint
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver.events import EpochReport, FitResult, StepReport, TrainingPlan
from supervisely_integration.train.progress_bars import AppProgress
from tests.tiny import tiny_config


class Bar:
    """A counter with the interface of tqdm."""

    def __init__(self, message, total):
        self.message, self.total, self.n = message, total, 0
        self.is_closed = False

    def update(self, count):
        assert count >= 0
        self.n += count

    def close(self):
        assert not self.is_closed
        self.is_closed = True


class Widget:
    """A progress widget of the page."""

    def __init__(self):
        self.bars = []
        self.is_shown = False

    def __call__(self, message, total):
        self.bars.append(Bar(message, total))
        return self.bars[-1]

    def show(self):
        self.is_shown = True

    def hide(self):
        self.is_shown = False


class Widgets:
    """The two widgets of the page."""

    def __init__(self):
        self.both = (Widget(), Widget())

    @property
    def epochs(self):
        return self._state(self.both[0])

    @property
    def steps(self):
        return self._state(self.both[1])

    def _state(self, widget):
        return (widget.bars[-1].n, widget.bars[-1].total)

    @property
    def is_hidden(self):
        bars = [bar for widget in self.both for bar in widget.bars]
        return not any(w.is_shown for w in self.both) and all(bar.is_closed for bar in bars)


@pytest.fixture
def bars():
    return Widgets()


@pytest.fixture
def lines(caplog):
    """The lines that were logged so far."""
    caplog.set_level(logging.INFO, "supervisely_integration")
    return lambda: caplog.messages


def plan(first_epoch=0, epochs=4):
    return TrainingPlan(
        epochs=epochs,
        first_epoch=first_epoch,
        steps_per_epoch=3,
        batch_size=2,
        num_train_images=6,
        num_val_images=2,
        class_names=["cat", "dog"],
        image_size_hw=(64, 96),
        device="cpu",
        precision="float32",
        output_dir=Path("out"),
        schedule=[],
        changes=[],
    )


def step(number, epoch=0, eta_s=0.0):
    return StepReport(
        epoch=epoch,
        step=number,
        num_steps=3,
        global_step=number,
        loss=1.0,
        losses={},
        lr=0.1,
        images_per_s=8.0,
        data_s=0.0,
        step_s=0.1,
        eta_s=eta_s,
        grad_norm=1.0,
        is_fresh=True,
        is_logged=False,
    )


def evaluation(ap):
    point = OperatingPoint(threshold=0.5, precision=0.5, recall=0.5, f1=0.5)
    stats = dict.fromkeys(STAT_NAMES, 0.0) | {"AP": ap, "AP50": 2 * ap}
    return Evaluation(stats=stats, classes=[], best=point, losses={"loss_vfl": 1.5})


def epoch(number, ap=0.25, best_epoch=None, best_ap=None):
    best_epoch = number if best_epoch is None else best_epoch
    return EpochReport(
        epoch=number,
        train_loss=2.5,
        train_losses={},
        evaluation=evaluation(ap),
        is_best=best_epoch == number,
        best_epoch=best_epoch,
        best_ap=ap if best_ap is None else best_ap,
        lr=0.1,
        train_s=1.0,
        eval_s=1.0,
        data_s=0.0,
        step_s=0.1,
        images_per_s=20.04,
        skipped_steps=0,
    )


def result(last_epoch=3, stopped=None, best=None):
    return FitResult(
        best_epoch=1 if best else -1,
        best=best,
        confirmed=None,
        last_epoch=last_epoch,
        stopped=stopped,
    )


# Bars


def test_bars_follow_a_new_training(bars):
    follower = AppProgress(*bars.both)
    follower.train_started(plan())
    assert bars.epochs == (0, 4)
    for number in range(4):
        follower.epoch_started(number, 3)
        assert bars.steps == (0, 3)
        for i in range(3):
            follower.step_finished(step(i))
            assert bars.steps == (i + 1, 3)
        follower.epoch_finished(epoch(number))
        assert bars.epochs == (number + 1, 4)
    follower.train_finished(result())
    assert bars.is_hidden
    assert [len(widget.bars) for widget in bars.both] == [1, 4]


def test_bars_of_a_resumed_training_start_in_the_middle(bars, lines):
    follower = AppProgress(*bars.both)
    follower.train_started(plan(first_epoch=3))
    assert bars.epochs == (3, 4)
    assert "Resuming after epoch 3 of 4" in lines()
    follower.epoch_started(3, 3)
    follower.step_finished(step(1))  # two batches of this epoch were finished before
    assert bars.steps == (2, 3)
    follower.step_finished(step(2))
    assert bars.steps == (3, 3)


def test_stop_hides_the_bars_once(bars, lines):
    follower = AppProgress(*bars.both)
    follower.train_started(plan())
    follower.epoch_started(0, 3)
    follower.train_finished(result(last_epoch=-1, stopped="Stop button"))
    follower.close()
    assert bars.is_hidden
    assert "Training stopped after 0 of 4 epochs: Stop button" in lines()


def test_close_without_a_start_does_nothing(bars):
    AppProgress(*bars.both).close()
    assert [widget.bars for widget in bars.both] == [[], []]


def test_bars_work_with_the_widgets_of_the_sdk():
    from supervisely.app.widgets import Progress

    widgets = (Progress(hide_on_finish=False), Progress(hide_on_finish=False))
    follower = AppProgress(*widgets)
    follower.train_started(plan(first_epoch=1))
    follower.epoch_started(1, 3)
    follower.step_finished(step(2))
    follower.epoch_finished(epoch(1))
    assert [(bar.n, bar.total) for bar in follower._bars] == [(2, 4), (3, 3)]
    follower.train_finished(result())
    assert [widget.is_hidden() for widget in widgets] == [True, True]


def test_real_training_completes_the_bars(bars, digits, tmp_path, lines):
    cfg = tiny_config(tmp_path, digits)
    DetSolver(cfg, events=AppProgress(*bars.both)).fit()
    assert bars.epochs == (2, 2)
    assert bars.steps[0] == bars.steps[1] == 3
    assert bars.is_hidden
    assert any(line.startswith("Epoch 2/2: loss ") for line in lines())
    assert "Training finished: 2 of 2 epochs" in lines()


# Lines


def test_epoch_summary(bars, lines):
    follower = AppProgress(*bars.both, ("upload", "evaluation report", "ONNXRuntime"))
    follower.train_started(plan())
    assert lines()[-1] == "Training on 6 images, validating on 2, 2 classes, on cpu in float32"
    follower.epoch_started(1, 3)
    follower.step_finished(step(2, eta_s=150))
    follower.epoch_finished(dataclasses.replace(epoch(1), eta_s=120.0))
    assert lines()[-1] == (
        "Epoch 2/4: loss 2.500, validation loss 1.500, AP 0.250, the best so far, "
        "20.0 images/s, about 2 min of training and evaluation, then upload, evaluation report, "
        "ONNXRuntime"
    )
    follower.epoch_finished(epoch(3, ap=0.125, best_epoch=1, best_ap=0.25))
    assert lines()[-1].endswith("AP 0.125, best 0.250 in epoch 2, 20.0 images/s")
    follower.epoch_finished(dataclasses.replace(epoch(2), evaluation=None, eta_s=60.0))
    assert "Epoch 3/4: loss 2.500, 20.0 images/s, about 1 min of training" in lines()[-1]
    crowded = dataclasses.replace(epoch(3), evaluation=evaluation(0.25))
    crowded.evaluation.stats["AP_coco"] = 0.0625
    follower.epoch_finished(crowded)
    assert "AP 0.250 (0.062 with COCO's limit), the best so far" in lines()[-1]
    follower.train_finished(result(best=evaluation(0.25)))
    assert lines()[-2:] == [
        "Training finished: 4 of 4 epochs",
        "Best AP 0.250 (AP50 0.500) in epoch 2",
    ]
