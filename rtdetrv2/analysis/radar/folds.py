"""Detections on the training images by networks that were not trained on them.

The images are divided into folds; each fold is detected by a network that is trained on the others.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rtdetrv2_pytorch.src.data.annotation_arrays import Annotations
from rtdetrv2_pytorch.src.data.metrics.evaluator import DetectionTable
from rtdetrv2_pytorch.src.misc.files import replacing, write_text


@dataclass(frozen=True)
class Fold:
    """The files of a fold.

    Attributes:
        folder: of the fold.
        train: COCO file with the images of the other folds.
        held_out: COCO file with the images of this fold.
    """

    folder: Path
    train: Path
    held_out: Path

    @property
    def output(self) -> Path:
        """Output folder of the training."""
        return self.folder / "training"

    @property
    def detections(self) -> Path:
        """The detections on the images of this fold; the fold is finished if it exists."""
        return self.folder / "detections.npz"


def assign_folds(annotations: Annotations, count: int, *, seed: int) -> np.ndarray:
    """Divide the images evenly, with about the same number of images of each class.

    Returns:
        [images] int64 number of the fold, from 0.
    """
    frequency = np.bincount(
        annotations.labels[annotations.iscrowd == 0], minlength=len(annotations.categories)
    )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(annotations))
    rarest = [_rarest(annotations[int(place)].labels, frequency) for place in order]
    order = order[np.argsort(rarest, kind="stable")]
    folds = np.empty(len(order), np.int64)
    folds[order] = np.arange(len(order)) % count
    return folds


def write_folds(
    annotations: Annotations, folder: Path, count: int, *, seed: int, settings: dict[str, Any]
) -> list[Fold]:
    """Write the COCO files of all folds; image ids are 1 + the index in `annotations`.

    The results of an earlier call with the same labels and settings are kept.

    Args:
        annotations: of the training split.
        folder: of the folds.
        count: number of folds.
        seed: of the division.
        settings: plain values that the results depend on.
    """
    assigned = assign_folds(annotations, count, seed=seed)
    coco = _with_files(annotations)
    folds = []
    for number in range(count):
        target = folder / f"fold{number}"
        fold = Fold(target, target / "instances_train.json", target / "instances_held_out.json")
        texts = {
            fold.train: json.dumps(_part(coco, assigned != number)),
            fold.held_out: json.dumps(_part(coco, assigned == number)),
            target / "settings.json": json.dumps(settings),
        }
        if not all(path.is_file() and path.read_text() == text for path, text in texts.items()):
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            for path, text in texts.items():
                write_text(path, text)
        folds.append(fold)
    return folds


def save_detections(fold: Fold, found: DetectionTable) -> None:
    """Save the detections of a finished fold."""
    with replacing(fold.detections, suffix=".npz") as partial:
        np.savez(
            partial,
            image_ids=found.image_ids,
            counts=found.counts,
            boxes=found.boxes,
            scores=found.scores,
            labels=found.labels,
        )


def join_detections(folds: Sequence[Fold], annotations: Annotations) -> DetectionTable:
    """Return the saved detections of all folds, with the image ids of `annotations`."""
    parts = []
    for fold in folds:
        with np.load(fold.detections) as saved:
            parts.append({name: saved[name] for name in saved.files})
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return DetectionTable(**{**joined, "image_ids": annotations.image_ids[joined["image_ids"] - 1]})


def _rarest(labels: np.ndarray, frequency: np.ndarray) -> int:
    """Return the rarest class of an image; images without objects come last."""
    if not len(labels):
        return len(frequency)
    return int(labels[frequency[labels].argmin()])


def _with_files(annotations: Annotations) -> dict[str, Any]:
    coco = annotations.to_coco()
    places = {image["id"]: place for place, image in enumerate(coco["images"])}
    for place, image in enumerate(coco["images"]):
        image.update(id=place + 1, file_name=annotations[place].file_name)
        if not image["width"]:
            del image["width"], image["height"]
    for each in coco["annotations"]:
        each["image_id"] = places[each["image_id"]] + 1
    return coco


def _part(coco: dict[str, Any], chosen: np.ndarray) -> dict[str, Any]:
    return {
        **coco,
        "images": [each for each in coco["images"] if chosen[each["id"] - 1]],
        "annotations": [each for each in coco["annotations"] if chosen[each["image_id"] - 1]],
    }
