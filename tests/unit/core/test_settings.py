"""Run-wide scalars."""

import dataclasses
import re

import pytest

from rtdetrv2_pytorch.src.core import ConfigError
from rtdetrv2_pytorch.src.core.settings import Settings


@pytest.mark.parametrize(
    ("name", "value", "low"),
    [
        ("epoches", 0, 1),
        ("checkpoint_freq", -1, 0),
        ("grad_accum_steps", 0, 1),
        ("patience", -2, 0),
    ],
)
def test_values_below_their_range_are_refused_by_name(name, value, low):
    with pytest.raises(ConfigError, match=rf"{name} = {value}: must be at least {low}"):
        Settings(**{name: value})


def test_resume_and_tuning_exclude_each_other_and_the_message_says_what_they_do():
    with pytest.raises(ConfigError, match="give one of them; resume goes on with a run, tuning"):
        Settings(resume="a.pth", tuning="b.pth")


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().epoches = 3


def test_every_setting_is_documented():
    documented = re.findall(r"^        (\w+): ", Settings.__doc__, flags=re.MULTILINE)
    assert documented == [field.name for field in dataclasses.fields(Settings)]
