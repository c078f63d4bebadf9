"""Folds: division of the images, files, and joined detections."""

import json

import numpy as np
import pytest

from rtdetrv2.analysis.radar.folds import (
    assign_folds,
    join_detections,
    save_detections,
    write_folds,
)
from rtdetrv2.analysis.radar.radar import epochs_within
from rtdetrv2_pytorch.src.data.annotation_arrays import Annotations, ImageRecord
from rtdetrv2_pytorch.src.data.categories import CategoryTable
from rtdetrv2_pytorch.src.data.metrics.evaluator import DetectionTable


def images(labels_of_images):
    """Return images with boxes of these classes; ids are 100, 101, ..."""
    records = []
    for number, labels in enumerate(labels_of_images):
        count = len(labels)
        boxes = np.array([[5.0 * i, 0, 5 * i + 4, 8] for i in range(count)]).reshape(-1, 4)
        areas, crowds = np.full(count, 32.0), np.zeros(count, np.int64)
        size = (64, 32) if number else None
        values = (boxes, np.array(labels, np.int64), areas, crowds)
        records.append(ImageRecord(f"sub/{number}.jpg", 100 + number, size, *values))
    return Annotations(records, CategoryTable((7, 9), ("a", "b")))


def test_folds_are_even_and_share_rare_classes():
    annotations = images([[0, 1]] * 3 + [[0]] * 9 + [[]] * 3)
    folds = assign_folds(annotations, 3, seed=0)
    for part in (folds[:3], folds[3:12], folds[12:]):
        assert len(set(np.bincount(part, minlength=3))) == 1
    assert folds.tolist() != assign_folds(annotations, 3, seed=1).tolist()
    assert folds.tolist() == assign_folds(annotations, 3, seed=0).tolist()


def test_each_image_is_held_out_once(tmp_path):
    annotations = images([[0], [1, 0], [1], [0]])
    held_out = []
    for fold in write_folds(annotations, tmp_path, 2, seed=0, settings={}):
        train, rest = (json.loads(path.read_text()) for path in (fold.train, fold.held_out))
        names = [[each["file_name"] for each in part["images"]] for part in (train, rest)]
        assert sorted(names[0] + names[1]) == [f"sub/{i}.jpg" for i in range(4)]
        held_out += names[1]
        for part in (train, rest):
            ids = {each["id"] for each in part["images"]}
            assert {each["image_id"] for each in part["annotations"]} == ids
            assert [each["name"] for each in part["categories"]] == ["a", "b"]
    assert sorted(held_out) == [f"sub/{i}.jpg" for i in range(4)]
    first = next(each for each in train["images"] + rest["images"] if each["id"] == 1)
    assert "width" not in first  # its size is unknown
    second = [each for each in train["annotations"] + rest["annotations"] if each["image_id"] == 2]
    assert [(each["category_id"], each["bbox"]) for each in second] == [
        (9, [0, 0, 4, 8]),
        (7, [5, 0, 4, 8]),
    ]


def test_results_are_kept_until_labels_or_settings_change(tmp_path):
    annotations = images([[0], [1], [1], [0]])

    def write(labels=annotations, **settings):
        return write_folds(labels, tmp_path, 2, seed=0, settings=settings)

    for fold in write(epochs=1):
        fold.detections.write_text("")
    assert all(fold.detections.is_file() for fold in write(epochs=1))
    assert not any(fold.detections.is_file() for fold in write(epochs=2))
    for fold in write(epochs=2):
        fold.detections.write_text("")
    changed = images([[0], [1], [1], [1]])
    assert not any(fold.detections.is_file() for fold in write(changed, epochs=2))


def test_detections_of_folds_are_joined_with_the_ids_of_the_dataset(tmp_path):
    annotations = images([[0], [1]])
    folds = write_folds(annotations, tmp_path, 2, seed=0, settings={})
    for fold in folds:
        (image,) = json.loads(fold.held_out.read_text())["images"]
        table = DetectionTable(
            image_ids=np.array([image["id"]]),
            counts=np.array([image["id"]]),
            boxes=np.full((image["id"], 4), image["id"], np.float32),
            scores=np.full(image["id"], 0.5, np.float32),
            labels=np.zeros(image["id"], np.int64),
        )
        save_detections(fold, table)
    joined = join_detections(folds, annotations)
    parts = joined.slices()
    assert sorted(parts) == [100, 101]
    assert joined.boxes[parts[100]].tolist() == [[1] * 4]
    assert joined.boxes[parts[101]].tolist() == [[2] * 4] * 2


@pytest.mark.parametrize(
    ("epochs", "folds", "expected"),
    [(13, 3, 6), (12, 3, 5), (12, 2, 11), (5, 3, 2), (6, 3, 2), (1, 3, 1)],
)
def test_all_networks_together_cost_less_than_one_training(epochs, folds, expected):
    assert epochs_within(epochs, folds) == expected
    if epochs > 1:
        assert folds * expected * (folds - 1) / folds <= epochs - 1
