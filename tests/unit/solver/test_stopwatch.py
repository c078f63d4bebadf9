"""Time by section, by host clock and CUDA events."""

from types import SimpleNamespace

import pytest
import torch

from rtdetrv2_pytorch.src.solver import stopwatch
from rtdetrv2_pytorch.src.solver.stopwatch import SECTIONS, Stopwatch, shares_of

CPU = torch.device("cpu")


def test_laps_of_a_section_add_up(monkeypatch):
    times = iter([10.0, 11.0, 13.0, 13.5, 14.0])
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: next(times))
    watch = Stopwatch(CPU)
    for section in ("data", "forward", "data", "other"):
        watch.lap(section)
    seconds = watch.seconds()
    assert tuple(seconds) == SECTIONS
    assert {name: s for name, s in seconds.items() if s} == {
        "data": 1.5,
        "forward": 2.0,
        "other": 0.5,
    }


def test_start_clears_all_laps(monkeypatch):
    times = iter([0.0, 5.0, 6.0, 8.0])
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: next(times))
    watch = Stopwatch(CPU)
    watch.lap("backward")
    watch.start()
    watch.lap("optimizer")
    assert {name: s for name, s in watch.seconds().items() if s} == {"optimizer": 2.0}


class Stream:
    """A fake device `lag` events behind the host, one second per event."""

    def __init__(self, lag):
        self.lag, self.recorded, self.waits = lag, 0, 0

    def event(self, enable_timing):
        assert enable_timing
        stream = self

        class Event(SimpleNamespace):
            def record(self, on):
                assert on == "stream of cuda:1"
                self.at = stream.recorded
                stream.recorded += 1

            def query(self):
                return self.at < stream.recorded - stream.lag

            def synchronize(self):
                stream.waits += 1
                stream.lag = 0

            def elapsed_time(self, other):
                assert other.query(), "read before the event finished"
                return 1000.0 * (other.at - self.at)

        return Event()


@pytest.mark.parametrize("lag", [0, 3, 100])
def test_laps_never_synchronize_with_the_device(monkeypatch, lag):
    stream = Stream(lag)
    monkeypatch.setattr(torch.cuda, "Event", stream.event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    watch = Stopwatch(torch.device("cuda", 1))
    for _ in range(4):
        watch.lap("data")
        watch.lap("forward")
    assert stream.waits == 0
    seconds = watch.seconds()
    assert (seconds["data"], seconds["forward"], seconds["backward"]) == (4.0, 4.0, 0.0)
    assert stream.waits == (lag > 0)


def test_shares_add_up_to_one():
    seconds = {**dict.fromkeys(SECTIONS, 0.0), "data": 2.0, "forward": 4.0}
    shares = shares_of(seconds, 2.0)
    assert (shares["data"], shares["forward"], shares["evaluation"]) == (0.25, 0.5, 0.25)
    assert sum(shares.values()) == 1
    assert set(shares_of(dict.fromkeys(SECTIONS, 0.0), 0.0).values()) == {0.0}


@pytest.mark.gpu
def test_events_of_a_gpu(gpu):
    watch = Stopwatch(gpu)
    a = torch.rand(2048, 2048, device=gpu)
    for _ in range(50):
        a = (a @ a).clamp(0, 1)
    watch.lap("forward")
    watch.lap("backward")
    seconds = watch.seconds()
    assert seconds["forward"] > 10 * seconds["backward"]
