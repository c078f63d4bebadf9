"""Subject of the benchmark: the augmentation presets against the published augmentations."""

import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.steps import config
from rtdetrv2.analysis.timing import every_turn, ratio, spread, summary
from rtdetrv2_pytorch.src.data.augment.presets import PRESETS

_PUBLISHED, _PASTED = "published", "none, balanced_paste: 0.5"


def augmentation(device: torch.device, images: int = 400, rounds: int = 5) -> dict[str, Any]:
    """Compare the CPU time of the presets with that of the published augmentations."""
    with one_thread(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ways = {
            _PUBLISHED: {},
            **{preset: {"augmentation": preset} for preset in PRESETS},
            _PASTED: {"augmentation": "none", "balanced_paste": 0.5},
        }
        splits = _splits(folder, images)
        runs = {way: _pipeline(splits, values) for way, values in ways.items()}
        samples = every_turn(runs, device, rounds=rounds, warmup=1, clock=time.process_time)
    times = {name: summary([s / images for s in seconds]) for name, seconds in samples.items()}
    others = [name for name in ways if name != _PUBLISHED]
    return {
        "what": "augmentation presets, one 640x480 JPEG to 640x640, CPU seconds per image",
        "seconds": times,
        "ratios": {name: ratio(times, _PUBLISHED, name) for name in others},
        "spread": {name: spread(samples[_PUBLISHED], samples[name]) for name in others},
    }


def _splits(folder: Path, images: int) -> dict[str, Any]:
    """Write images with three boxes each; returns the sections of both loaders."""
    boxes = ((50, 60, 150, 240), (300, 100, 300, 300), (400, 50, 80, 40))
    names = [path.name for path in write_pictures(folder, images)]
    content = {
        "images": [
            {"id": i, "file_name": name, "width": 640, "height": 480}
            for i, name in enumerate(names)
        ],
        "annotations": [
            {"id": 3 * i + k, "image_id": i, "category_id": k + 1, "bbox": box, "iscrowd": 0}
            for i in range(images)
            for k, box in enumerate(boxes)
        ],
        "categories": [{"id": k + 1, "name": f"class {k}"} for k in range(3)],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    dataset = {"img_folder": str(folder), "ann_file": str(path)}
    return {f"{split}_dataloader": {"dataset": dataset} for split in ("train", "val")}


def _pipeline(splits: dict[str, Any], values: dict[str, Any]) -> Callable[[], None]:
    dataset = config(**splits, **values).train_dataset
    epochs = itertools.count()

    def run() -> None:
        dataset.set_epoch(next(epochs))
        for i in range(len(dataset)):
            dataset[i]

    return run


def write_pictures(folder: Path, count: int) -> list[Path]:
    """Write JPEG files of 640x480 pixels with random content, and return their paths."""
    paths = [folder / f"{i}.jpg" for i in range(count)]
    rng = np.random.default_rng(0)
    for path in paths:
        coarse = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
        picture.save(path, quality=92)
    return paths


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread of torch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
