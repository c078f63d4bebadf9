"""Resizing of pixels, equal to torchvision.transforms.v2.functional.resize."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

Interpolation = Literal["bilinear", "bicubic", "nearest"]


def resize(
    pixels: Tensor,
    size_hw: Sequence[int],
    *,
    mode: Interpolation = "bilinear",
    antialias: bool = True,
) -> Tensor:
    """Resize images without keeping their aspect ratio.

    Args:
        pixels: [..., C, H, W] uint8.
        size_hw: (height, width) of the result.
        mode: interpolation.
        antialias: whether to filter when downscaling; "nearest" does not.

    Returns:
        [..., C, height, width] uint8.
    """
    *leading, channels, height, width = pixels.shape
    if (height, width) == tuple(size_hw):
        return pixels
    batch = pixels.reshape(-1, channels, height, width)
    if len(batch) == 1 and batch.is_contiguous(memory_format=torch.channels_last):
        # Without this stride torch writes a contiguous result, which costs a copy.
        strides = (batch.numel(), *batch.stride()[1:])
        batch = batch.as_strided(batch.shape, strides)
    if mode == "nearest":
        return interpolate(batch, size_hw, mode=mode).reshape(*leading, channels, *size_hw)  # type: ignore[arg-type]
    is_native = pixels.device.type == "cpu" and (mode == "bicubic" or _has_vector_kernel())
    resized = interpolate(
        batch if is_native else batch.float(),
        size_hw,  # type: ignore[arg-type]
        mode=mode,
        align_corners=False,
        antialias=antialias,
    )
    if not is_native:
        resized = resized.clamp_(0, 255).round_().to(torch.uint8)
    return resized.reshape(*leading, channels, *size_hw)


def _has_vector_kernel() -> bool:
    """Return whether torch resizes bytes faster than floats."""
    return torch.compiler.is_compiling() or torch.backends.cpu.get_cpu_capability() in (
        "AVX2",
        "AVX512",
    )
