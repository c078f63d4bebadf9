"""Whoever asks for an end, and whenever: one request; signals reach who should have them."""

import os
import signal
import threading
import time

import pytest

from supervisely_integration.train.lifecycle import Stage, StopControl


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
def control(left):
    """A control that has taken the signals, with a handler below it that only notes them."""
    received = []
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda n, frame: received.append(n))
    control = StopControl(left)
    control.take_signals()
    control.received = received
    yield control
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("stage", [Stage.TRAINING, Stage.FINALIZATION])
def test_while_it_trains_or_uploads_a_signal_is_a_request(control, left, stage, number):
    control.stage = stage
    os.kill(os.getpid(), number)
    assert control.flag.is_set
    assert control.flag.reason == signal.Signals(number).name
    assert control.received == []
    assert left == []


@pytest.mark.parametrize("stage", [Stage.IDLE, Stage.OVER])
def test_at_other_times_signals_go_to_the_server(control, stage):
    control.stage = stage
    os.kill(os.getpid(), signal.SIGTERM)
    assert control.received == [signal.SIGTERM]
    assert not control.flag.is_set


def test_a_preparation_is_left_at_once(control, left):
    control.stage = Stage.PREPARATION
    control.request("Stop button")
    assert left.happened.wait(5)
    assert left == [True]
    assert control.flag.reason == "Stop button"


def test_a_preparation_that_ends_in_time_is_not_left(control, left):
    control.stage = Stage.PREPARATION
    control.request("Stop button")
    control.stage = Stage.TRAINING  # where the flag is seen before the first step
    time.sleep(0.8)
    assert left == []


def test_the_first_reason_counts(control):
    control.stage = Stage.TRAINING
    control.request("Stop button")
    control.request("SIGTERM")
    assert control.flag.reason == "Stop button"
