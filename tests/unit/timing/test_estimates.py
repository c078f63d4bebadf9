"""Durations of trainings, computed by hand."""

import pytest

from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.timing.estimates import EpochTime, Speed, parse_duration


@pytest.mark.parametrize(
    ("workers", "cores", "is_gpu", "expected"),
    [
        (0, 8, True, 1.4),  # between the steps
        (2, 8, True, 0.8),  # loading takes 0.6 / 2: hidden by the computation
        (0, 8, False, 1.4),
        (4, 2, False, 1.1),  # both on two cores: 0.8 + 0.6 / 2
    ],
)
def test_workers_load_while_a_gpu_computes(workers, cores, is_gpu, expected):
    speed = Speed(compute_s=0.8, load_s=0.6, val_image_s=0.1)
    found = speed.step_s(num_workers=workers, num_cores=cores, is_gpu=is_gpu)
    assert found == pytest.approx(expected)


def test_loading_limits_a_fast_gpu():
    speed = Speed(compute_s=0.1, load_s=2.0, val_image_s=0.1)
    assert speed.step_s(num_workers=4, num_cores=16, is_gpu=True) == 0.5
    assert speed.step_s(num_workers=8, num_cores=2, is_gpu=True) == 1.0  # two cores only


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30m", 1800), ("2h", 7200), (1.5, 5400), ("1.5", 5400), (" 90 m ", 5400), (2, 7200)],
)
def test_durations_are_minutes_or_hours(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0m", 0, -1, "30s", "1h30m", "h", "inf", "2 days"])
def test_other_durations_are_rejected(text):
    with pytest.raises(ConfigError, match=r"time_budget = .*: give minutes as 30m, or hours"):
        parse_duration(text)


def test_seconds_of_epochs_with_their_evaluations():
    always, third = EpochTime(10.0, 4.0), EpochTime(10.0, 4.0, 3)
    assert always.seconds(0, 7) == 98.0
    assert third.seconds(0, 7) == 82.0  # evaluated: 3, 6 and 7
    assert third.seconds(3, 7) == 48.0  # 6 and 7
    assert third.seconds(6, 7) == 14.0
    assert third.seconds(0, 6) == 68.0


@pytest.mark.parametrize("freq", [1, 2, 3, 5])
def test_as_many_epochs_as_fit(freq):
    one = EpochTime(10.0, 4.0, freq)
    for budget in range(1, 200):
        found = one.epochs_within(budget)
        fitting = [n for n in range(1, 30) if one.seconds(0, n) <= budget]
        assert found == max(fitting, default=1)
