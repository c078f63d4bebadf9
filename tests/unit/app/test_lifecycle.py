"""Stop requests in every stage of a training, and the signals of the web server."""

import os
import signal
import threading
import time

import pytest

from rtdetrv2_pytorch.src.solver.stopping import STOP_SIGNALS
from supervisely_integration.task_status import KEEP_OPEN
from supervisely_integration.train.lifecycle import (
    Lifecycle,
    TrainingStage,
    TrainingStopped,
    stays_open,
)


class Left(list):
    """Counts calls of `leave`."""

    def __init__(self):
        super().__init__()
        self.happened = threading.Event()

    def __call__(self):
        self.append(threading.current_thread() is not threading.main_thread())
        self.happened.set()


@pytest.fixture
def left():
    return Left()


@pytest.fixture
def lifecycle(left):
    """A lifecycle with signal handlers, above a handler that records signals."""
    received = []
    before = {s: signal.getsignal(s) for s in STOP_SIGNALS}
    for number in before:
        signal.signal(number, lambda n, frame: received.append(n))
    lifecycle = Lifecycle(left)
    lifecycle.install_signal_handlers()
    lifecycle.received = received
    yield lifecycle
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("gui_state", "is_task", "is_kept", "expected"),
    [
        (None, True, False, False),  # a task of the platform
        (None, True, True, True),  # `local train --gui`
        (None, False, False, True),  # development
        ('{"start_training": true}', False, True, False),
        ('{"start_training": false}', True, True, True),
    ],
)
def test_app_stays_open_if_a_person_closes_it(monkeypatch, gui_state, is_task, is_kept, expected):
    monkeypatch.delenv(KEEP_OPEN, raising=False)
    monkeypatch.setenv("ENV", "production" if is_task else "development")
    if is_kept:
        monkeypatch.setenv(KEEP_OPEN, "1")
    assert stays_open(gui_state) is expected


def test_button_does_not_end_an_open_app_in_preparation_and_a_signal_does(left, lifecycle):
    lifecycle.stays_open = True
    lifecycle.begin()
    lifecycle.stop("Stop button")
    assert not left.happened.wait(0.8)
    with pytest.raises(TrainingStopped, match="Stop button"):
        lifecycle.check()
    lifecycle.begin()
    assert not lifecycle.is_stopping
    os.kill(os.getpid(), signal.SIGTERM)
    assert left.happened.wait(5)
    assert not lifecycle.stays_open


@pytest.mark.parametrize("number", STOP_SIGNALS)
@pytest.mark.parametrize("stage", [TrainingStage.TRAINING, TrainingStage.FINALIZATION])
def test_signal_is_a_stop_request_during_training_and_upload(lifecycle, left, stage, number):
    lifecycle.stage = stage
    os.kill(os.getpid(), number)
    assert lifecycle.stop_flag.is_set
    assert lifecycle.stop_flag.reason == signal.Signals(number).name
    assert lifecycle.received == []
    assert left == []


@pytest.mark.parametrize("stage", [TrainingStage.IDLE, TrainingStage.OVER])
def test_signals_reach_the_server_at_other_times(lifecycle, stage):
    lifecycle.stage = stage
    os.kill(os.getpid(), signal.SIGTERM)
    assert lifecycle.received == [signal.SIGTERM]
    assert not lifecycle.stop_flag.is_set


def test_stop_in_preparation_exits(lifecycle, left):
    lifecycle.stage = TrainingStage.PREPARATION
    lifecycle.stop("Stop button")
    assert left.happened.wait(5)
    assert left == [True]
    assert lifecycle.stop_flag.reason == "Stop button"


def test_stop_at_the_end_of_preparation_does_not_exit(lifecycle, left):
    lifecycle.stage = TrainingStage.PREPARATION
    lifecycle.stop("Stop button")
    lifecycle.stage = TrainingStage.TRAINING  # which checks the flag before its first step
    time.sleep(0.8)
    assert left == []


def test_first_reason_is_kept(lifecycle):
    lifecycle.stage = TrainingStage.TRAINING
    lifecycle.stop("Stop button")
    lifecycle.stop("SIGTERM")
    assert lifecycle.stop_flag.reason == "Stop button"


def test_check_raises_after_a_request(lifecycle):
    lifecycle.check()
    lifecycle.stop("Stop button")
    assert lifecycle.is_stopping
    with pytest.raises(TrainingStopped, match="Stop button"):
        lifecycle.check()
