"""Objects of other images: MixUp, copy-paste and random mosaics."""

import random

import numpy as np
import pytest
import torch

from rtdetrv2_pytorch.src.data.augment.compose import Compose
from rtdetrv2_pytorch.src.data.augment.mixing import CopyPaste, MixUp
from rtdetrv2_pytorch.src.data.augment.mosaic import Mosaic
from rtdetrv2_pytorch.src.data.coco_dataset import CocoDetection


class Source:
    """A data set with one image."""

    def __init__(self, make):
        self.make = make

    def __len__(self):
        return 1

    def load_readable(self, index):
        return index, self.make()


@pytest.fixture
def other(make_sample):
    """Creates a source with one white image of 20x30 pixels, with an object of class 7."""

    def make():
        sample = make_sample(20, 30, (5, 4, 15, 12))
        sample.image[:] = 255
        sample.labels[:], sample.area[:] = 7, 80
        sample.crowd_boxes, sample.crowd_labels = np.array([[0.0, 0, 3, 20]]), np.array([2])
        return sample

    return Source(make)


def bound(op, source):
    Compose(ops=[op]).bind(source)
    return op


def test_mixup_averages_pixels_and_keeps_all_objects(make_sample, other):
    flips = set()
    for seed in range(12):
        sample = make_sample(40, 60, (1, 2, 9, 8))
        sample.image[:] = 55
        bound(MixUp(ratio=(0.4, 0.4), p=1), other)(sample, random.Random(seed))
        assert (sample.image == 175).all()  # 0.4 * 55 + 0.6 * 255
        assert sample.labels.tolist() == [0, 7]
        assert sample.area.tolist() == [0, 80]
        assert sample.boxes[0].tolist() == [1, 2, 9, 8]
        flips.add(tuple(sample.boxes[1].tolist()))
        assert sample.crowd_labels.tolist() == [2]
        left = 0 if sample.boxes[1, 0] == 10 else 54
        assert sample.crowd_boxes.tolist() == [[left, 0, left + 6, 40]]
    assert flips == {(10, 8, 30, 24), (30, 8, 50, 24)}


def test_copy_paste_adds_objects_where_nothing_is(make_sample, other):
    pasted = 0
    for seed in range(40):
        sample = make_sample(30, 40, (0, 0, 12, 30))
        sample.crowd_boxes, sample.crowd_labels = np.array([[30.0, 0, 40, 30]]), np.array([0])
        sample.image[:] = 10
        source = sample.image
        bound(CopyPaste(scale=(0.5, 1.5), p=1), other)(sample, random.Random(seed))
        assert (source == 10).all()  # pixels of the cache are not changed
        white = torch.nonzero(sample.image[0] == 255)
        if len(sample.boxes) == 1:
            assert len(white) == 0
            continue
        pasted += 1
        assert sample.labels.tolist() == [0, 7]
        x1, y1, x2, y2 = sample.boxes[1]
        assert white.min(0).values.tolist() == [y1, x1]
        assert (white.max(0).values + 1).tolist() == [y2, x2]
        assert sample.area[1] == pytest.approx((x2 - x1) * (y2 - y1))
        covered = max(min(x2, 12) - x1, 0) * (y2 - y1), max(x2 - max(x1, 30), 0) * (y2 - y1)
        assert covered[0] <= 0.1 * 12 * 30
        assert covered[1] <= 0.1 * 10 * 30
    assert 5 < pasted < 40


def test_copy_paste_keeps_the_place_of_a_box_between_pixels(make_sample):
    def make():
        sample = make_sample(20, 20, (2.5, 3.25, 9.5, 8.75))
        sample.image[:] = 255
        return sample

    sample = make_sample(100, 100)
    bound(CopyPaste(scale=(1, 1), p=1), Source(make))(sample, random.Random(0))
    x1, y1, x2, y2 = sample.boxes[0]
    assert (x1 % 1, y1 % 1, x2 - x1, y2 - y1) == (0.5, 0.25, 7, 5.5)


def test_copy_paste_without_place_or_objects(make_sample, other):
    small = make_sample(5, 5, (0, 0, 2, 2))
    bound(CopyPaste(scale=(1, 1), p=1), other)(small, random.Random(0))
    assert len(small.boxes) == 1
    sample = make_sample(50, 50)
    empty = Source(lambda: make_sample(20, 20))
    bound(CopyPaste(p=1), empty)(sample, random.Random(0))
    assert len(sample.boxes) == 0


@pytest.fixture
def cats_and_a_dog(write_coco):
    """Nine images with two cats, one with a dog and a crowd of birds."""
    names = [f"{i}.png" for i in range(10)]
    images = [
        {"id": i, "file_name": name, "width": 40, "height": 30} for i, name in enumerate(names)
    ]
    cats = [
        {"image_id": i, "category_id": 1, "bbox": [x, 3, 8, 8]} for i in range(9) for x in (2, 20)
    ]
    dog = {"image_id": 9, "category_id": 2, "bbox": [4, 3, 10, 8]}
    birds = {"image_id": 9, "category_id": 3, "bbox": [20, 3, 10, 8], "iscrowd": 1}
    classes = [{"id": i, "name": name} for i, name in ((1, "cat"), (2, "dog"), (3, "bird"))]
    return CocoDetection(**write_coco([*cats, dog, birds], images, classes, files=names))


def test_balanced_copy_paste_chooses_all_classes_equally_often(make_sample, cats_and_a_dog):
    op = CopyPaste(max_objects=1, p=1, balanced=True)
    op.bind(cats_and_a_dog)
    pasted = [op(make_sample(200, 200), random.Random(seed)).labels.tolist() for seed in range(400)]
    # 18 cats and one dog; the standard deviation of a fair coin is 10
    assert (pasted.count([0]), pasted.count([1])) == (pytest.approx(200, abs=40),) * 2
    assert pasted.count([0]) + pasted.count([1]) == 400  # crowd regions are not pasted


def test_balanced_copy_paste_takes_objects_of_several_images(make_sample, cats_and_a_dog):
    op = CopyPaste(max_objects=3, max_covered=1, p=1, balanced=True)
    op.bind(cats_and_a_dog)
    counts = [len(op(make_sample(300, 300), random.Random(seed)).labels) for seed in range(60)]
    assert set(counts) == {1, 2, 3}


def test_balanced_copy_paste_without_objects(make_sample, write_coco):
    crowd = {"image_id": 1, "category_id": 1, "bbox": [2, 2, 8, 8], "iscrowd": 1}
    op = CopyPaste(p=1, balanced=True)
    op.bind(CocoDetection(**write_coco([crowd])))
    assert len(op(make_sample(50, 50), random.Random(0)).labels) == 0


def test_balanced_copy_paste_of_an_unreadable_image(make_sample, cats_and_a_dog, monkeypatch):
    """A readable image is loaded in its place, which may not have the class."""
    real = cats_and_a_dog.load_readable
    monkeypatch.setattr(cats_and_a_dog, "load_readable", lambda i: real(0 if i == 9 else i))
    op = CopyPaste(max_objects=1, p=1, balanced=True)
    op.bind(cats_and_a_dog)
    pasted = [op(make_sample(200, 200), random.Random(seed)).labels.tolist() for seed in range(50)]
    assert [0] in pasted
    assert [] in pasted
    assert [1] not in pasted


@pytest.mark.parametrize("op", [MixUp(p=0.3), CopyPaste(p=0.3), Mosaic(size=32, p=0.3)])
def test_probability(make_sample, other, op):
    bound(op, other)
    mixed = 0
    for seed in range(200):
        sample = make_sample(64, 64)
        mixed += len(op(sample, random.Random(seed)).labels) > 0
    assert 30 < mixed < 90


@pytest.mark.parametrize("op", [MixUp(p=1), CopyPaste(p=1), CopyPaste(p=1, balanced=True)])
def test_needs_a_data_set(make_sample, op):
    with pytest.raises(ValueError, match=f"{type(op).__name__} needs a data set: use it inside C"):
        op(make_sample(20, 30), random.Random(0))


@pytest.mark.parametrize(
    ("op", "options", "message"),
    [
        (MixUp, {"ratio": (0.5, 1.5)}, r"ratio \(0.5, 1.5\): give .* 0 <= low <= high <= 1"),
        (CopyPaste, {"scale": (0, 1)}, r"scale \(0, 1\): give .* 0 < low <= high"),
    ],
)
def test_invalid_ranges(op, options, message):
    with pytest.raises(ValueError, match=message):
        op(**options)
