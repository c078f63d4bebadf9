"""Selection of the precision and its fallback."""

import pytest
import torch

from rtdetrv2_pytorch.src.robustness import precision
from rtdetrv2_pytorch.src.robustness.precision import has_bfloat16, resolve_precision

CPU = torch.device("cpu")


def with_cpu_flags(monkeypatch, flags):
    monkeypatch.setattr(precision.Path, "read_text", lambda self: f"flags : fpu {flags} sse")


def test_float32_without_amp():
    chosen = resolve_precision(use_amp=False, amp_dtype="float16", device=CPU)
    assert chosen.dtype is torch.float32
    assert not chosen.is_mixed


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ("avx512_bf16", torch.bfloat16),
        ("amx_bf16", torch.bfloat16),
        ("avx2 avx512f", torch.float32),
    ],
)
def test_auto_selects_bfloat16_by_cpu_features(monkeypatch, flags, dtype):
    with_cpu_flags(monkeypatch, flags)
    assert resolve_precision(use_amp=True, amp_dtype="auto", device=CPU).dtype is dtype


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_auto_selects_bfloat16_by_gpu_capability(monkeypatch, caplog, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    with caplog.at_level("INFO"):
        chosen = resolve_precision(use_amp=True, amp_dtype="auto", device=torch.device("cuda"))
    assert chosen.dtype is dtype
    assert ("amp_dtype: float16 would be faster" in caplog.text) == (dtype is torch.float32)


def test_float16_on_request():
    assert resolve_precision(use_amp=True, amp_dtype="float16", device=CPU).dtype is torch.float16


def test_no_bfloat16_if_cpu_features_are_unknown(monkeypatch):
    def missing(self):
        raise FileNotFoundError

    monkeypatch.setattr(precision.Path, "read_text", missing)
    assert not has_bfloat16(CPU)


def test_autocast_is_enabled_in_mixed_precision_only():
    linear, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    for dtype in (torch.float32, torch.bfloat16):
        with precision.Precision(dtype).autocast(CPU):
            assert linear(x).dtype is dtype
    assert str(precision.Precision(torch.bfloat16)) == "bfloat16"


@pytest.mark.parametrize(
    ("dtype", "is_supported", "expected"),
    [
        (torch.float16, True, torch.bfloat16),
        (torch.float16, False, torch.float32),
        (torch.bfloat16, True, torch.float32),
    ],
)
def test_fallback_order(monkeypatch, dtype, is_supported, expected):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: is_supported)
    assert precision.Precision(dtype).fallback(CPU).dtype is expected
    assert precision.Precision(torch.float32).fallback(CPU) is None
