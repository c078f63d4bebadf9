"""Stop requests and signals."""

import os
import signal
import threading

import pytest

from rtdetrv2_pytorch.src.solver.stopping import StopFlag, stop_on_signals


def test_first_reason_is_kept():
    flag = StopFlag()
    assert not flag.is_set
    flag.request("GUI")
    flag.request("SIGTERM")
    assert flag.is_set
    assert flag.reason == "GUI"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_requests_a_stop(number):
    flag = StopFlag()
    before = signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup
    try:
        with stop_on_signals(flag):
            os.kill(os.getpid(), number)
    finally:
        signal.signal(number, before)
    assert flag.reason == number.name


def test_ignored_hangup_stays_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    flag = StopFlag()
    try:
        with stop_on_signals(flag):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not flag.is_set


def test_second_sigint_interrupts():
    flag = StopFlag()
    with stop_on_signals(flag):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_signal_handlers_are_restored():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with stop_on_signals(StopFlag()):
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_signal_handlers_stay_unchanged_outside_the_main_thread():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def run():
        with stop_on_signals(StopFlag()):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]
