"""Settings of a run."""

import dataclasses
import re

import pytest

from rtdetrv2_pytorch.src.core import ConfigError
from rtdetrv2_pytorch.src.core.settings import Settings


def test_resume_and_tuning_are_mutually_exclusive():
    with pytest.raises(ConfigError, match="give one of them; resume continues a run, tuning"):
        Settings(resume="a.pth", tuning="b.pth")


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().epoches = 3


def test_every_setting_is_documented():
    documented = re.findall(r"^        (\w+): ", Settings.__doc__, flags=re.MULTILINE)
    assert documented == [field.name for field in dataclasses.fields(Settings)]
