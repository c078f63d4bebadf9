"""Events -> calls of the SDK's logger, and lines for people."""

import json
import logging
from pathlib import Path

import pytest

from rtdetrv2_pytorch.src.data.metrics.evaluator import STAT_NAMES, Evaluation
from rtdetrv2_pytorch.src.data.metrics.operating_point import OperatingPoint
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver.events import EpochReport, FitResult, StepReport, TrainingPlan
from supervisely_integration.train import progress
from supervisely_integration.train.progress import AppProgress, show_logs
from tests.tiny import tiny_config


class Bars:
    """Counts as the SDK's progress bars do."""

    def __init__(self):
        self.calls = []
        self.epochs = self.steps = None  # (done, total)

    def train_started(self, total_epochs):
        self.calls.append(f"train {total_epochs}")
        self.epochs = (0, total_epochs)

    def epoch_started(self, total_steps):
        self.calls.append(f"epoch {total_steps}")
        self.steps = (0, total_steps)

    def step_finished(self):
        self.steps = (self.steps[0] + 1, self.steps[1])

    def epoch_finished(self):
        self.epochs = (self.epochs[0] + 1, self.epochs[1])

    def train_finished(self):
        self.calls.append("end")


@pytest.fixture
def bars():
    return Bars()


@pytest.fixture
def lines(caplog):
    """What was said so far."""
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


def test_a_new_training(bars):
    follower = AppProgress(bars)
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
    assert bars.calls == ["train 4", *["epoch 3"] * 4, "end"]


def test_a_resumed_training_begins_where_it_stands(bars, lines):
    follower = AppProgress(bars)
    follower.train_started(plan(first_epoch=3))
    assert bars.epochs == (3, 4)
    assert "Going on after epoch 3 of 4" in lines()
    follower.epoch_started(3, 3)
    follower.step_finished(step(1))  # two batches of this epoch were done before
    assert bars.steps == (2, 3)
    follower.step_finished(step(2))
    assert bars.steps == (3, 3)


def test_an_early_stop_hides_the_bars_once(bars, lines):
    follower = AppProgress(bars)
    follower.train_started(plan())
    follower.epoch_started(0, 3)
    follower.train_finished(result(last_epoch=-1, stopped="Stop button"))
    follower.close()
    assert bars.calls == ["train 4", "epoch 3", "end"]
    assert "Training stopped after 0 of 4 epochs: Stop button" in lines()


def test_closing_what_never_started_does_nothing(bars):
    AppProgress(bars).close()
    assert bars.calls == []


def test_the_sdks_own_logger_is_moved():
    from supervisely.nn.training import loggers

    logger = loggers.BaseTrainLogger()
    totals = []
    logger.add_on_train_started_callback(totals.append)
    logger.add_on_epoch_started_callback(totals.append)
    follower = AppProgress(logger)
    follower.train_started(plan(first_epoch=1))
    follower.epoch_started(1, 3)
    follower.step_finished(step(2))
    follower.epoch_finished(epoch(1))
    follower.train_finished(result())
    assert totals == [4, 3]
    assert (logger.epoch_idx, logger.step_idx) == (2, 3)


def test_a_real_training_moves_the_bars_to_their_ends(bars, digits, tmp_path, lines):
    cfg = tiny_config(tmp_path, digits)
    DetSolver(cfg, events=AppProgress(bars)).fit()
    assert bars.epochs == (2, 2)
    assert bars.steps[0] == bars.steps[1] == 3
    assert bars.calls[-1] == "end"
    assert any(line.startswith("Epoch 2/2: loss ") for line in lines())
    assert "Training finished: 2 of 2 epochs" in lines()


# Lines


def test_an_epoch_in_words(bars, lines):
    follower = AppProgress(bars)
    follower.train_started(plan())
    assert lines()[-1] == "Training on 6 images, validating on 2, 2 classes, on cpu in float32"
    follower.epoch_started(1, 3)
    follower.step_finished(step(2, eta_s=150))
    follower.epoch_finished(epoch(1))
    assert lines()[-1] == (
        "Epoch 2/4: loss 2.500, validation loss 1.500, AP 0.250, the best so far, "
        "20.0 images/s, about 2 min left"
    )
    follower.epoch_finished(epoch(3, ap=0.125, best_epoch=1, best_ap=0.25))
    assert lines()[-1].endswith("AP 0.125, best 0.250 in epoch 2, 20.0 images/s")
    follower.train_finished(result(best=evaluation(0.25)))
    assert lines()[-2:] == [
        "Training finished: 4 of 4 epochs",
        "Best AP 0.250 (AP50 0.500) in epoch 2",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (29, "29 s"), (90, "2 min"), (3540, "59 min"), (7300, "2 h 2 min")],
)
def test_durations(seconds, text):
    assert progress._duration(seconds) == text


# The log window


@pytest.fixture
def clean_loggers():
    """Loggers as they were, after the test."""
    ours = [logging.getLogger(name) for name in ("rtdetrv2_pytorch", "supervisely_integration")]
    before = [(log, list(log.handlers), log.level, log.propagate) for log in ours]
    yield
    for log, handlers, level, propagate in before:
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)


def test_lines_of_the_engine_reach_the_sdks_log(clean_loggers, capsys):
    from supervisely.sly_logger import create_formatter

    written = []

    class Collector(logging.Handler):
        def emit(self, record):
            written.append(json.loads(self.format(record)))

    handler = Collector()
    handler.setFormatter(create_formatter())
    show_logs(iter([handler]))
    show_logs([handler])  # a second call adds nothing
    logging.getLogger("rtdetrv2_pytorch.src.solver.observers").info("epoch=%d", 3)
    logging.getLogger("supervisely_integration.train.coco").warning("left out")
    logging.getLogger("rtdetrv2_pytorch.src.core").debug("too much")
    assert [(x["message"], x["level"]) for x in written] == [
        ("epoch=3", "info"),
        ("left out", logging.getLevelName(logging.WARNING).lower()),
    ]
