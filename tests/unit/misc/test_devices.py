"""Device names: available devices, and errors for all others."""

import pytest
import torch

from rtdetrv2_pytorch.src.misc.devices import check_compiler, checked_device, named_device
from rtdetrv2_pytorch.src.misc.errors import ConfigError


def test_unavailable_device_is_rejected(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert checked_device("cpu") == torch.device("cpu")
    assert checked_device(torch.device("cuda", 1)) == torch.device("cuda:1")
    with pytest.raises(ConfigError, match=r"^device = 'cuda:2': torch sees 2 GPUs here; choose an"):
        checked_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match=r"^device = 'cuda': torch sees 0 GPUs here"):
        checked_device("cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "mps"])
def test_invalid_device_name_is_rejected(name):
    with pytest.raises(ConfigError, match=f"^device = '{name}': "):
        checked_device(name)


def test_named_device_need_not_exist_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert named_device("cuda:3") == torch.device("cuda", 3)
    with pytest.raises(ConfigError, match="^device = 'gpu': "):
        named_device("gpu")


def test_compiler_error_without_message_is_reported_by_type(monkeypatch):
    def fail(kernel):
        raise ImportError

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(ConfigError, match=r"failed \(ImportError\); install a C\+\+"):
        check_compiler(torch.device("cpu"))
