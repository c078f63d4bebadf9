"""A sample data set that is always at hand: handwritten digits on textured backgrounds.

The digits are real (scikit-learn ships 1,797 scans of 8x8 pixels); size, place, colour and
background are drawn from a seed, so the set is the same on every machine. Digits of the
validation split never occur in the training split.
"""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image
from sklearn.datasets import load_digits

IMAGE_WH = (320, 256)
_DIGIT_SIDES = (28, 88)  # pixels, smallest and largest
_MAX_DIGITS = 6
_HELD_OUT = 5  # every fifth scan belongs to validation
_COMPLETE = "complete.json"  # written last: a set without it is made again


def make_digits_dataset(
    folder: Path,
    *,
    num_train: int = 480,
    num_val: int = 120,
    seed: int = 0,
    on_image: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the set in COCO format, unless it is there already; of several processes, one does.

    Args:
        folder: gets `annotations/instances_{train,val}.json`, `train/` and `val/`.
        num_train: training images.
        num_val: validation images.
        seed: of everything that is drawn.
        on_image: called with (images done, images in all).

    Returns:
        The folder.
    """
    wanted = {"num_train": num_train, "num_val": num_val, "seed": seed}
    marker = folder / _COMPLETE
    if not _says(marker, wanted):  # nothing is written where nothing is missing
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not _says(marker, wanted):
                marker.unlink(missing_ok=True)
                _write(folder, num_train=num_train, num_val=num_val, seed=seed, on_image=on_image)
                marker.write_text(json.dumps(wanted))
    return folder


def _says(marker: Path, wanted: dict[str, int]) -> bool:
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
        return bool(json.loads(marker.read_text()) == wanted)
    return False


def _write(
    folder: Path,
    *,
    num_train: int,
    num_val: int,
    seed: int,
    on_image: Callable[[int, int], None] | None,
) -> None:
    digits = load_digits()
    number = np.arange(len(digits.images))
    done = 0
    for split, count in (("train", num_train), ("val", num_val)):
        is_held_out = number % _HELD_OUT == 0
        scans = number[is_held_out if split == "val" else ~is_held_out]
        rng = np.random.default_rng([seed, int(split == "val")])
        (folder / split).mkdir(parents=True, exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image_id in range(1, count + 1):
            pixels, boxes = _draw(rng, digits.images, digits.target, scans)
            name = f"{image_id:05d}.jpg"
            Image.fromarray(pixels).save(folder / split / name, quality=92)
            images.append(
                {
                    "id": image_id,
                    "file_name": name,
                    "width": IMAGE_WH[0],
                    "height": IMAGE_WH[1],
                }
            )
            for box, digit in boxes:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": digit,
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": 0,
                    }
                )
            done += 1
            if on_image is not None:
                on_image(done, num_train + num_val)
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": digit, "name": str(digit)} for digit in range(10)],
        }
        target = folder / "annotations" / f"instances_{split}.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(content))


def _draw(
    rng: np.random.Generator, scans: np.ndarray, labels: np.ndarray, choices: np.ndarray
) -> tuple[np.ndarray, list[tuple[list[int], int]]]:
    """One image [H, W, 3] uint8 and its (xywh box, digit) pairs; digits hardly overlap."""
    canvas = _background(rng)
    boxes: list[tuple[list[int], int]] = []
    for _ in range(int(rng.integers(1, _MAX_DIGITS + 1))):
        scan = int(rng.choice(choices))
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
        colour = _contrasting_colour(rng, window)
        opacity = np.clip(ink * 1.4, 0, 1)[..., None]
        canvas[y : y + height, x : x + width] = window * (1 - opacity) + colour * opacity
        boxes.append(([x, y, width, height], int(labels[scan])))
    noisy = canvas + rng.normal(0, 4, canvas.shape)
    return noisy.clip(0, 255).astype(np.uint8), boxes


def _background(rng: np.random.Generator) -> np.ndarray:
    """Smooth blobs of a few colours, [H, W, 3] float."""
    cells = int(rng.integers(2, 9))
    coarse = rng.uniform(0, 255, (cells, cells, 3)).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize(IMAGE_WH, Image.Resampling.BICUBIC)
    fine = rng.normal(0, rng.uniform(0, 18), (IMAGE_WH[1] // 4, IMAGE_WH[0] // 4))
    grain = Image.fromarray(fine.astype(np.float32)).resize(IMAGE_WH, Image.Resampling.BILINEAR)
    flattened = 0.5 * np.asarray(smooth, np.float32) + 0.5 * rng.uniform(40, 215, 3)
    return flattened + np.asarray(grain)[..., None]


def _contrasting_colour(rng: np.random.Generator, window: np.ndarray) -> np.ndarray:
    """A colour that can be told from what is below it."""
    below = window.mean((0, 1))
    candidates = rng.uniform(0, 255, (8, 3))
    return candidates[np.abs(candidates - below).sum(1).argmax()]


def _enlarge(scan: np.ndarray, side: int) -> np.ndarray:
    image = Image.fromarray(scan.astype(np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)).clip(0, 1)


def _overlap(box: list[int], other: list[int]) -> float:
    """Common area as a share of the smaller box."""
    width = min(box[0] + box[2], other[0] + other[2]) - max(box[0], other[0])
    height = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
    smaller = min(box[2] * box[3], other[2] * other[3])
    return max(width, 0) * max(height, 0) / smaller
