"""Mixed precision of a training: the autocast dtype, the loss scaler and the fallback."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.amp.grad_scaler import GradScaler

logger = logging.getLogger(__name__)

_CPU_FEATURES = ("avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Precision:
    """The dtype for autocast; float32 disables autocast."""

    dtype: torch.dtype

    @property
    def is_mixed(self) -> bool:
        """Whether autocast is enabled."""
        return self.dtype != torch.float32

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context for the forward pass; losses are computed outside, in float32."""
        return torch.autocast(device.type, self.dtype, enabled=self.is_mixed)

    def fallback(self, device: torch.device) -> "Precision | None":
        """Return the next dtype with a larger range or more digits; None after float32."""
        if not self.is_mixed:
            return None
        is_next = self.dtype == torch.float16 and has_bfloat16(device)
        return Precision(torch.bfloat16 if is_next else torch.float32)

    def __str__(self) -> str:
        return str(self.dtype).removeprefix("torch.")


class MixedPrecision:
    """The precision of a run with its loss scaler; both change when training falls back.

    Args:
        precision: the configured precision.
        device: device of the model.
    """

    def __init__(self, precision: Precision, device: torch.device) -> None:
        self.precision = precision
        self.device = device
        self.has_fallen_back = False
        self.scaler = GradScaler(device.type) if self.uses_loss_scale else unit_scaler(device)

    @property
    def uses_loss_scale(self) -> bool:
        """Whether losses are scaled against underflow of the gradients."""
        return self.precision.dtype == torch.float16

    def autocast(self) -> torch.autocast:
        """Return the context for the forward pass."""
        return self.precision.autocast(self.device)

    def fall_back_to(self, precision: Precision) -> None:
        """Replace the configured precision for the rest of the run."""
        self.precision = precision
        self.has_fallen_back = True
        self.scaler = unit_scaler(self.device)


def unit_scaler(device: torch.device) -> GradScaler:
    """Return a scaler with a constant scale of 1.

    The scaler skips an optimizer step with non-finite gradients without a device synchronization,
    which is useful without loss scaling, too.
    """
    return GradScaler(device.type, init_scale=1.0, growth_interval=2**31 - 1)


def resolve_precision(*, use_amp: bool, amp_dtype: str, device: torch.device) -> Precision:
    """Select the dtype: bfloat16 if the hardware supports it, float16 only on request.

    Args:
        use_amp: whether to use mixed precision.
        amp_dtype: "auto", "bfloat16" or "float16".
        device: device of the model.
    """
    if not use_amp:
        return Precision(torch.float32)
    if amp_dtype == "auto":
        if has_bfloat16(device):
            return Precision(torch.bfloat16)
        hint = "; amp_dtype: float16 would be faster" if device.type == "cuda" else ""
        logger.info("this %s does not support bfloat16: using float32%s", device.type, hint)
        return Precision(torch.float32)
    return Precision(getattr(torch, amp_dtype))


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the hardware computes in bfloat16; emulation is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        try:
            info = Path("/proc/cpuinfo").read_text()
        except OSError:
            return False
        return any(feature in info for feature in _CPU_FEATURES)
    return False
