"""Time a few batches of a training, on generated images, in this process or as a program.

As a program, it takes a `ProbeTask` as JSON, prints the result as JSON, and ends when its standard
input is closed, so that it does not outlive the app.
"""

import dataclasses
import json
import logging
import math
import os
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.error_places import naming_overrides
from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.solver.speed_test import TIMED_BATCHES, measure_speed
from rtdetrv2_pytorch.src.timing.estimates import Speed

from ..hyperparameters import NAME_IN_ERRORS
from ..run_config import RunFiles, run_config

_CPU_IMAGES = 4  # per timed batch; a CPU takes N times as long for N times as many images
_NUM_FILES = 4  # the same images are loaded several times
_NUM_BOXES = 6  # per image
_NUM_CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class ProbeTask:
    """The properties of a training that its speed depends on."""

    base_config: str  # path of the model's configuration
    hyperparameters: dict[str, Any]
    longest_side: int  # of an image of the project, pixels
    device: str  # of the first rank
    num_ranks: int = 1  # that share a batch


def measure(task: ProbeTask) -> Speed:
    """Train and validate the model on a few batches of generated images, with random weights.

    Raises:
        RTDETRError: if a hyperparameter is invalid or a batch does not fit in memory.
    """
    values = task.hyperparameters
    batch = math.ceil(int(values["batch_size"]) / task.num_ranks)
    val_batch = int(values["val_batch_size"] or 2 * batch)
    is_cpu = task.device == "cpu"
    timed, val_timed = (min(n, _CPU_IMAGES) if is_cpu else n for n in (batch, val_batch))
    with tempfile.TemporaryDirectory(prefix="timing-") as name:
        folder = Path(name)
        train, val = (
            _write_images(folder / split, count * TIMED_BATCHES, task.longest_side)
            for split, count in (("train", timed), ("val", val_timed))
        )
        files = RunFiles(
            base_config=Path(task.base_config),
            train_images=train.parent,
            train_annotations=train,
            val_images=val.parent,
            val_annotations=val,
            output_dir=folder,
        )
        sizes = {"batch_size": timed, "val_batch_size": val_timed}
        run = run_config({**values, **sizes}, files, num_classes=_NUM_CLASSES, device=task.device)
        fixed = {
            "num_workers": 0,  # loading is timed alone
            "cache": "none",
            "compile": False,
            "train_dataloader": {"collate_fn": {"scales": None}},  # their mean is the base size
        }
        with naming_overrides(NAME_IN_ERRORS):
            cfg = YAMLConfig(files.base_config, **merge(run.overrides, fixed))
            speed = measure_speed(cfg)
    scale = batch / timed
    return dataclasses.replace(
        speed, compute_s=speed.compute_s * scale, load_s=speed.load_s * scale
    )


def _write_images(folder: Path, count: int, longest_side: int) -> Path:
    """Write a split of JPEG files of the project's size; return its annotation file."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    width, height = longest_side, max(1, longest_side * 3 // 4)
    for number in range(_NUM_FILES):
        coarse = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
        image.save(folder / f"{number}.jpg")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for id_ in range(1, count + 1):
        name = f"{id_ % _NUM_FILES}.jpg"
        images.append({"id": id_, "file_name": name, "width": width, "height": height})
        for x, y, w, h in rng.uniform(0.1, 0.4, (_NUM_BOXES, 4)) * [width, height, width, height]:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": id_,
                    "category_id": 1 + len(annotations) % _NUM_CLASSES,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": id_, "name": str(id_)} for id_ in range(1, _NUM_CLASSES + 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def _exit_with_the_app() -> None:
    sys.stdin.read()
    os._exit(1)


def main(task: str) -> None:
    """Print the speed, or the error, as one line of JSON."""
    threading.Thread(target=_exit_with_the_app, daemon=True).start()
    logging.disable(logging.CRITICAL)
    result: dict[str, Any]
    try:
        result = dataclasses.asdict(measure(ProbeTask(**json.loads(task))))
    except Exception as error:  # noqa: BLE001 (any: the app shows the reason)
        result = {"error": str(error) or type(error).__name__}
    sys.stdout.write(f"{json.dumps(result)}\n")


if __name__ == "__main__":
    main(sys.argv[1])
