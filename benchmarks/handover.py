"""Measure the transfer of batches from workers to the main process."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader as PlainLoader
from torch.utils.data import Dataset, default_collate

from rtdetrv2.analysis.timing import ratio, take_turns
from rtdetrv2_pytorch.src.data.loading.loader import DataLoader
from rtdetrv2_pytorch.src.structures import Target


class ReadyImages(Dataset[tuple[Tensor, Target]]):
    """Items without computation: small images with targets.

    Args:
        images: number of images.
        boxes: boxes per image.
    """

    def __init__(self, images: int, boxes: int) -> None:
        self.images = images
        self.boxes = boxes

    def set_epoch(self, epoch: int) -> None:
        """Do nothing."""

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        return torch.zeros(3, 64, 64, dtype=torch.uint8), Target(
            boxes=torch.zeros(self.boxes, 4),
            labels=torch.zeros(self.boxes, dtype=torch.int64),
            image_id=torch.tensor([index]),
            area=torch.zeros(self.boxes),
            iscrowd=torch.zeros(self.boxes, dtype=torch.int64),
            orig_size=torch.tensor([64, 64]),
            idx=torch.tensor([index]),
        )


def _list_targets(items: Sequence[tuple[Tensor, Target]]) -> tuple[Tensor, list[Target]]:
    """Collate as detection code commonly does."""
    return default_collate([image for image, _ in items]), [target for _, target in items]


def hand_over(
    device: torch.device, batch: int = 16, boxes: int = 20, batches: int = 40
) -> dict[str, Any]:
    """Compare our loader with torch's loader, which returns targets as a list."""
    data = ReadyImages(batch * batches, boxes)
    common: dict[str, Any] = {"dataset": data, "batch_size": batch, "num_workers": 2}
    loaders = {
        "ours": DataLoader(**common, pin_memory=False),
        "torch, targets in a list": PlainLoader(
            **common, collate_fn=_list_targets, persistent_workers=True
        ),
    }
    own_seconds: dict[str, list[float]] = {name: [] for name in loaders}

    def way(name: str) -> None:
        begin = time.process_time()
        for _ in loaders[name]:
            pass
        own_seconds[name].append((time.process_time() - begin) / batches)

    times = take_turns({name: lambda name=name: way(name) for name in loaders}, device)
    for result in times.values():
        for key in result:
            result[key] /= batches
    plain = "torch, targets in a list"
    return {
        "what": f"batch of {batch} from a worker, {boxes} boxes per image, seconds per batch",
        "seconds": times,
        "facts": {
            name: {"processor time of the main process in ms": 1e3 * statistics.median(s)}
            for name, s in own_seconds.items()
        },
        "ratios": {"ours vs torch, targets in a list": ratio(times, plain, "ours")},
    }
