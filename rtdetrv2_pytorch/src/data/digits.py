"""A sample data set that needs no download: handwritten digits on textured backgrounds.

The digits are 1,797 scans of 8x8 pixels from scikit-learn. Sizes, positions, colors and backgrounds
are random with a fixed seed, so the set is the same on every machine. The splits use different
scans.
"""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image

from ..misc.errors import extra

IMAGE_WH = (320, 256)
_DIGIT_SIDES = (28, 88)  # pixels, smallest and largest
_MAX_DIGITS = 6
_VALIDATION_STEP = 5  # every fifth scan belongs to validation
_COMPLETE = "complete.json"  # written last; a set without it is rewritten


def make_digits_dataset(
    folder: Path,
    *,
    num_train: int = 480,
    num_val: int = 120,
    seed: int = 0,
    class_weights: Sequence[float] | None = None,
) -> Path:
    """Write the set in COCO format unless it exists. Concurrent processes write it once.

    Args:
        folder: for `annotations/instances_{train,val}.json`, `train/` and `val/`.
        num_train: training images.
        num_val: validation images.
        seed: of the random numbers.
        class_weights: how often each digit occurs in the training split, relative to the others;
            None: as in the scans, about equally.

    Returns:
        The folder.
    """
    settings: dict[str, Any] = {"num_train": num_train, "num_val": num_val, "seed": seed}
    if class_weights is not None:
        settings["class_weights"] = list(class_weights)
    marker = folder / _COMPLETE
    if not _is_complete(marker, settings):  # avoid the lock, so that the folder may be read-only
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not _is_complete(marker, settings):
                marker.unlink(missing_ok=True)
                _write_split(folder, "train", num_train, seed, class_weights)
                _write_split(folder, "val", num_val, seed, None)
                marker.write_text(json.dumps(settings))
    return folder


def _is_complete(marker: Path, settings: dict[str, Any]) -> bool:
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
        return bool(json.loads(marker.read_text()) == settings)
    return False


def _write_split(
    folder: Path, split: str, count: int, seed: int, class_weights: Sequence[float] | None
) -> None:
    with extra("train"):
        from sklearn.datasets import load_digits
    digits = load_digits()
    scan = np.arange(len(digits.images))
    is_validation = scan % _VALIDATION_STEP == 0
    scans = scan[is_validation if split == "val" else ~is_validation]
    chances = None
    if class_weights is not None:
        chances = np.asarray(class_weights, dtype=float)[digits.target[scans]]
        chances /= chances.sum()
    rng = np.random.default_rng([seed, int(split == "val")])
    (folder / split).mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    width, height = IMAGE_WH
    for image_id in range(1, count + 1):
        pixels, boxes = _render(rng, digits.images, digits.target, scans, chances)
        name = f"{image_id:05d}.jpg"
        Image.fromarray(pixels).save(folder / split / name, quality=92)
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for box, digit in boxes:
            size = {"bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": digit}
            annotations.append(ids | size)
    categories = [{"id": digit, "name": str(digit)} for digit in range(10)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    target = folder / "annotations" / f"instances_{split}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(content))


def _render(
    rng: np.random.Generator,
    scans: np.ndarray,
    labels: np.ndarray,
    choices: np.ndarray,
    chances: np.ndarray | None = None,
) -> tuple[np.ndarray, list[tuple[list[int], int]]]:
    """Return an image [H, W, 3] uint8 and its (xywh box, digit) pairs with little overlap."""
    canvas = _background(rng)
    boxes: list[tuple[list[int], int]] = []
    for _ in range(int(rng.integers(1, _MAX_DIGITS + 1))):
        scan = int(rng.choice(choices, p=chances))
        side = int(rng.integers(_DIGIT_SIDES[0], _DIGIT_SIDES[1] + 1))
        ink = _enlarge(scans[scan] / 16, side)
        rows, columns = np.nonzero(ink > 0.35)
        if not len(rows):
            continue
        top, bottom = int(rows.min()), int(rows.max()) + 1
        left, right = int(columns.min()), int(columns.max()) + 1
        ink = ink[top:bottom, left:right]
        height, width = ink.shape
        x = int(rng.integers(0, IMAGE_WH[0] - width))
        y = int(rng.integers(0, IMAGE_WH[1] - height))
        if any(_overlap([x, y, width, height], box) > 0.1 for box, _ in boxes):
            continue
        window = canvas[y : y + height, x : x + width]
        color = _contrasting_color(rng, window)
        opacity = np.clip(ink * 1.4, 0, 1)[..., None]
        canvas[y : y + height, x : x + width] = window * (1 - opacity) + color * opacity
        boxes.append(([x, y, width, height], int(labels[scan])))
    noisy = canvas + rng.normal(0, 4, canvas.shape)
    return noisy.clip(0, 255).astype(np.uint8), boxes


def _background(rng: np.random.Generator) -> np.ndarray:
    """Return smooth blobs of random colors, [H, W, 3] float."""
    cells = int(rng.integers(2, 9))
    coarse = rng.uniform(0, 255, (cells, cells, 3)).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize(IMAGE_WH, Image.Resampling.BICUBIC)
    fine = rng.normal(0, rng.uniform(0, 18), (IMAGE_WH[1] // 4, IMAGE_WH[0] // 4))
    grain = Image.fromarray(fine.astype(np.float32)).resize(IMAGE_WH, Image.Resampling.BILINEAR)
    flattened = 0.5 * np.asarray(smooth, np.float32) + 0.5 * rng.uniform(40, 215, 3)
    return flattened + np.asarray(grain)[..., None]


def _contrasting_color(rng: np.random.Generator, window: np.ndarray) -> np.ndarray:
    """Return a random color that differs from the mean color of the window."""
    candidates = rng.uniform(0, 255, (8, 3))
    return candidates[np.abs(candidates - window.mean((0, 1))).sum(1).argmax()]


def _enlarge(scan: np.ndarray, side: int) -> np.ndarray:
    image = Image.fromarray(scan.astype(np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)).clip(0, 1)


def _overlap(box: list[int], other: list[int]) -> float:
    """Return the intersection as a fraction of the smaller box."""
    width = min(box[0] + box[2], other[0] + other[2]) - max(box[0], other[0])
    height = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
    smaller = min(box[2] * box[3], other[2] * other[3])
    return max(width, 0) * max(height, 0) / smaller
