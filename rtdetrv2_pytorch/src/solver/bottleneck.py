"""The section of an epoch that limits the training speed, with a remedy."""

import math
import os
from collections.abc import Mapping

import torch

from ..data.images.image_cache import CacheKind
from ..robustness.precision import Precision, has_bfloat16

# Minimum shares that make a section the bottleneck: of the training time, evaluation of the epoch.
_INPUT, _EVALUATION, _TRANSFER, _MATCHING = 0.1, 0.5, 0.15, 0.3


def bottleneck(
    shares: Mapping[str, float],
    *,
    num_workers: int,
    cache: CacheKind,
    device: torch.device,
    precision: Precision,
) -> str:
    """Return the bottleneck of an epoch and a remedy, in one sentence.

    Args:
        shares: share of the epoch by section.
        num_workers: loader processes.
        cache: storage of decoded images.
        device: device of the training.
        precision: precision of the forward pass.
    """
    training = 1 - shares["evaluation"]
    data = shares["data"] / training if training > 0 else 0.0
    if data >= _INPUT:
        remedies = [_worker_advice(data, num_workers, device)]
        remedies += ["cache: ram"] if cache == "none" else []
        named = ", or ".join(filter(None, remedies)) or "more or faster CPU cores"
        return f"input bound: {named}"
    if shares["evaluation"] >= _EVALUATION:
        return "evaluation bound: fewer validation images"
    if shares["transfer"] >= _TRANSFER * training:
        pinned = "pin_memory: true, or " if device.type == "cuda" else ""
        return f"transfer bound: {pinned}smaller images"
    if shares["matching"] >= _MATCHING * training:
        return "matching bound: faster CPU cores, the matching runs on the host"
    if not precision.is_mixed and has_bfloat16(device):
        return "compute bound: use_amp: true would compute in bfloat16"
    return "compute bound: the input keeps up"


def _worker_advice(data: float, num_workers: int, device: torch.device) -> str:
    """Return how many more workers hide the waiting time, limited by the spare cores."""
    busy = 1 - data
    wanted = num_workers / busy if num_workers else data / busy
    more = max(1, math.ceil(wanted) - num_workers) if busy > 0 else num_workers + 1
    possible = min(more, _spare_cores(num_workers, device))
    return f"{possible} more worker{'s' * (possible > 1)}" if possible > 0 else ""


def _spare_cores(num_workers: int, device: torch.device) -> int:
    """Return the cores used neither by this rank's workers nor by a network on the CPU."""
    if device.type == "cpu":
        return 0
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(0, (os.cpu_count() or 1) // ranks - num_workers)
