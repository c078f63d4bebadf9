"""Ending early."""

import os
import signal
import threading

import pytest

from rtdetrv2_pytorch.src.solver.stopping import StopFlag, stop_on_signals


def test_the_first_reason_counts():
    flag = StopFlag()
    assert not flag.is_set
    flag.request("GUI")
    flag.request("SIGTERM")
    assert flag.is_set
    assert flag.reason == "GUI"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_the_flag_instead_of_ending_the_process(number):
    flag = StopFlag()
    with stop_on_signals(flag):
        os.kill(os.getpid(), number)
    assert flag.reason == number.name


def test_a_second_interrupt_ends_at_once():
    flag = StopFlag()
    with stop_on_signals(flag):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with stop_on_signals(StopFlag()):
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_in_another_thread_signals_stay_as_they_are():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def run():
        with stop_on_signals(StopFlag()):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]
