"""Which number type the network computes in."""

import pytest
import torch

from rtdetrv2_pytorch.src.robustness import precision
from rtdetrv2_pytorch.src.robustness.precision import has_bfloat16, resolve_precision

CPU = torch.device("cpu")


def with_cpu_flags(monkeypatch, flags):
    monkeypatch.setattr(precision.Path, "read_text", lambda self: f"flags : fpu {flags} sse")


def test_without_mixed_precision_it_is_float32():
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
def test_auto_takes_bfloat16_only_where_the_cpu_has_it(monkeypatch, flags, dtype):
    with_cpu_flags(monkeypatch, flags)
    assert resolve_precision(use_amp=True, amp_dtype="auto", device=CPU).dtype is dtype


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_auto_takes_bfloat16_only_where_the_gpu_has_it(monkeypatch, caplog, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    with caplog.at_level("INFO"):
        chosen = resolve_precision(use_amp=True, amp_dtype="auto", device=torch.device("cuda"))
    assert chosen.dtype is dtype
    assert ("amp_dtype: float16 would be faster" in caplog.text) == (dtype is torch.float32)


def test_float16_is_used_when_asked_for():
    assert resolve_precision(use_amp=True, amp_dtype="float16", device=CPU).dtype is torch.float16


def test_an_unknown_cpu_has_no_bfloat16(monkeypatch):
    def missing(self):
        raise FileNotFoundError

    monkeypatch.setattr(precision.Path, "read_text", missing)
    assert not has_bfloat16(CPU)


def test_autocast_covers_the_model_only_where_it_is_mixed():
    linear, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    for dtype in (torch.float32, torch.bfloat16):
        with precision.Precision(dtype).autocast(CPU):
            assert linear(x).dtype is dtype
    assert str(precision.Precision(torch.bfloat16)) == "bfloat16"


@pytest.mark.parametrize(
    ("dtype", "has_it", "expected"),
    [
        (torch.float16, True, torch.bfloat16),
        (torch.float16, False, torch.float32),
        (torch.bfloat16, True, torch.float32),
    ],
)
def test_what_is_more_exact(monkeypatch, dtype, has_it, expected):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: has_it)
    assert precision.Precision(dtype).more_exact(CPU).dtype is expected
    assert precision.Precision(torch.float32).more_exact(CPU) is None
