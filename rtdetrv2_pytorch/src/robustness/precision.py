"""Which number type the network computes in."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

_CPU_FEATURES = ("avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Precision:
    """A number type for autocast; float32 means no autocast."""

    dtype: torch.dtype

    @property
    def is_mixed(self) -> bool:
        """Whether autocast is on."""
        return self.dtype != torch.float32

    def autocast(self, device: torch.device) -> torch.autocast:
        """Context in which the model runs; losses stay outside, in float32."""
        return torch.autocast(device.type, self.dtype, enabled=self.is_mixed)

    def more_exact(self, device: torch.device) -> "Precision | None":
        """What to try when numbers overflow: bfloat16 has the range of float32, float16 has not."""
        if not self.is_mixed:
            return None
        is_next = self.dtype == torch.float16 and has_bfloat16(device)
        return Precision(torch.bfloat16 if is_next else torch.float32)

    def __str__(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def resolve_precision(*, use_amp: bool, amp_dtype: str, device: torch.device) -> Precision:
    """Choose the type: bfloat16 where the hardware computes in it, float16 only when asked for.

    Args:
        use_amp: whether mixed precision is wanted.
        amp_dtype: "auto", "bfloat16" or "float16".
        device: where the model runs.
    """
    if not use_amp:
        return Precision(torch.float32)
    if amp_dtype == "auto":
        if has_bfloat16(device):
            return Precision(torch.bfloat16)
        hint = "; amp_dtype: float16 would be faster" if device.type == "cuda" else ""
        logger.info("this %s does not compute in bfloat16: using float32%s", device.type, hint)
        return Precision(torch.float32)
    return Precision(getattr(torch, amp_dtype))


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware has instructions for bfloat16 (emulation is slower than float32)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        try:
            info = Path("/proc/cpuinfo").read_text()
        except OSError:
            return False
        return any(feature in info for feature in _CPU_FEATURES)
    return False
