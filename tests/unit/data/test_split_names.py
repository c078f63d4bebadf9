"""Names of training, validation and test splits, and the random split."""

import pytest

from rtdetrv2_pytorch.src.data.split_names import decide, held_out, split_of_path


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train2017", "train"),
        ("a/train", "train"),
        ("VOC2007/train", "train"),
        ("Train", "train"),
        ("trainval", "train"),
        ("TrainImages", "train"),
        ("training_set", "train"),
        ("my_val", "val"),
        ("valid", "val"),
        ("validate", "val"),
        ("eval", "val"),
        ("instances_Validation", "val"),
        ("test-dev2017", "test"),
        ("tests/images", "test"),
        ("train/a/val", "val"),
        ("default", None),
        ("constrained", None),
        ("values", None),
        ("ds0", None),
    ],
)
def test_split_of_a_name(name, part):
    assert split_of_path(name) == part


@pytest.mark.parametrize(
    ("groups", "parts", "divided", "note"),
    [
        (
            {"train2017": 8, "my_val": 2, "test": 5},
            {"train2017": "train", "my_val": "val", "test": "test"},
            (),
            "Splits of the data: training train2017 (8 images), validation my_val (2 images); "
            "test split test (5 images) not used",
        ),
        (
            {"default": 8, "val": 1},
            {"default": "train", "val": "val"},
            (),
            "Splits of the data: training default (8 images), validation val (1 image); default "
            "is for training: no other split is",
        ),
        (
            {"a/train": 3, "b/train": 4, "eval": 1, "extra": 9},
            {"a/train": "train", "b/train": "train", "eval": "val"},
            (),
            "Splits of the data: training a/train, b/train (7 images), validation eval (1 image); "
            "extra (9 images) in no split, not used",
        ),
        (
            {"train": 3, "test": 4},
            {"train": "train", "test": "val"},
            (),
            "Splits of the data: training train (3 images), validation test (4 images); no "
            "validation split found; the test split is used for validation",
        ),
        (
            {"ds0": 10},
            {"ds0": "train"},
            {"ds0"},
            "Random split of 10 images (the data names no splits): 80 % training, 20 % "
            "validation, stratified by class, seed 0",
        ),
        (
            {"train": 10, "val": 0},
            {"train": "train"},
            {"train"},
            "Random split of 10 images (the data names a training split only): 80 % training, "
            "20 % validation, stratified by class, seed 0",
        ),
        (
            {"train": 3, "misc": 3},
            {"train": "train", "misc": "train"},
            {"train", "misc"},
            "Random split of 6 images (the data names a training split only, so misc is divided, "
            "too): 80 % training, 20 % validation, stratified by class, seed 0",
        ),
        (
            {"test": 10},
            {"test": "test"},
            (),
            "only a test split (test) found, nothing to train on; add training images, or rename "
            "the split",
        ),
    ],
)
def test_decision(groups, parts, divided, note):
    decision = decide(groups)
    assert (decision.parts, decision.divided, decision.note) == (parts, frozenset(divided), note)


def test_random_split_is_stratified_and_independent_of_the_order():
    images = [(f"x/{n}.jpg", ["rare"] if n % 10 == 0 else ["common"]) for n in range(100)]
    chosen = held_out(images)
    assert sum(chosen) == 20
    assert sum(is_val for n, is_val in enumerate(chosen) if n % 10 == 0) == 2
    assert held_out(images[::-1]) == chosen[::-1]
    assert held_out([(name.replace("x/", "y/"), classes) for name, classes in images]) == chosen
    assert held_out(images, seed=1) != chosen


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_random_split_of_few_images(count):
    assert sum(held_out([(f"{n}.jpg", []) for n in range(count)])) == int(count > 1)
