"""Subject of the benchmark: the augmentation presets against the published augmentations."""

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.steps import config
from rtdetrv2.analysis.timing import every_turn, ratio, spread, summary
from rtdetrv2_pytorch.src.data.augment.presets import PRESETS
from rtdetrv2_pytorch.src.data.augment.sample import Sample
from rtdetrv2_pytorch.src.data.images.decoding import read_rgb

_PUBLISHED = "published"


def augmentation(device: torch.device, images: int = 400, rounds: int = 5) -> dict[str, Any]:
    """Compare the CPU time of the presets with that of the published augmentations."""
    with one_thread(), tempfile.TemporaryDirectory() as name:
        paths = write_pictures(Path(name), images)
        ways = {each or _PUBLISHED: _pipeline(paths, each) for each in (None, *PRESETS)}
        samples = every_turn(ways, device, rounds=rounds, warmup=1, clock=time.process_time)
    times = {name: summary([s / images for s in seconds]) for name, seconds in samples.items()}
    return {
        "what": "augmentation presets, one 640x480 JPEG to 640x640, CPU seconds per image",
        "seconds": times,
        "ratios": {name: ratio(times, _PUBLISHED, name) for name in PRESETS},
        "spread": {name: spread(samples[_PUBLISHED], samples[name]) for name in PRESETS},
    }


def _pipeline(paths: Sequence[Path], preset: str | None) -> Callable[[], None]:
    cfg = config(augmentation=preset)
    values = cfg.yaml_cfg["train_dataloader"]["dataset"]["transforms"]
    compose = cfg.sections().construct(values, "transforms")
    boxes = np.array([[50.0, 60, 200, 300], [300, 100, 600, 400], [400, 50, 480, 90]])
    turn = random.Random(0)

    def run() -> None:
        for path in paths:
            image = torch.from_numpy(read_rgb(path)).permute(2, 0, 1)
            sample = Sample(image, boxes.copy(), np.arange(3), np.ones(3))
            compose(sample, random.Random(turn.random()), 0)

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
