"""Devices: those that are here, and one error for the others."""

import pytest
import torch

from rtdetrv2_pytorch.src.misc.devices import check_compiler, checked_device, named_device
from rtdetrv2_pytorch.src.misc.errors import ConfigError


def test_a_device_is_checked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert checked_device("cpu") == torch.device("cpu")
    assert checked_device(torch.device("cuda", 1)) == torch.device("cuda:1")
    with pytest.raises(ConfigError, match=r"^device = 'cuda:2': torch sees 2 GPUs here; choose an"):
        checked_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match=r"^device = 'cuda': torch sees 0 GPUs here"):
        checked_device("cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "mps"])
def test_a_name_of_no_device_is_refused(name):
    with pytest.raises(ConfigError, match=f"^device = '{name}': "):
        checked_device(name)


def test_a_name_may_be_that_of_another_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert named_device("cuda:3") == torch.device("cuda", 3)
    with pytest.raises(ConfigError, match="^device = 'gpu': "):
        named_device("gpu")


def test_a_compiler_that_fails_without_a_word_is_told_by_the_kind_of_its_error(monkeypatch):
    def fail(kernel):
        raise ImportError

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(ConfigError, match=r"failed \(ImportError\); install a C\+\+"):
        check_compiler(torch.device("cpu"))
