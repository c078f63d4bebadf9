"""Augmentations by hand, against torchvision, and pixels against boxes."""

import functools
import random
from collections import Counter

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from rtdetrv2_pytorch.src.data.augment.box_transforms import ConvertBoxes, SanitizeBoundingBoxes
from rtdetrv2_pytorch.src.data.augment.color import gray
from rtdetrv2_pytorch.src.data.augment.compose import Compose
from rtdetrv2_pytorch.src.data.augment.cropping import RandomCrop, RandomIoUCrop
from rtdetrv2_pytorch.src.data.augment.geometric import (
    PadToSize,
    RandomHorizontalFlip,
    RandomZoomOut,
    Resize,
    as_hw,
)
from rtdetrv2_pytorch.src.data.augment.mosaic import Mosaic
from rtdetrv2_pytorch.src.data.augment.photometric import Normalize, RandomPhotometricDistort
from rtdetrv2_pytorch.src.data.augment.sample import Sample
from rtdetrv2_pytorch.src.data.augment.transform import ConvertPILImage, EmptyTransform


def apply(op, sample, seed=0):
    return op(sample, random.Random(seed))


def spread(values, low, high):
    """Assert that values are uniform: mean within five standard errors, ends within 1/20."""
    width = high - low
    error = width / np.sqrt(12 * len(values))
    assert min(values) >= low
    assert max(values) <= high
    assert min(values) < low + width / 20
    assert max(values) > high - width / 20
    assert np.mean(values) == pytest.approx((low + high) / 2, abs=5 * error)


def happens_with(p, count, trials):
    assert count / trials == pytest.approx(p, abs=5 * np.sqrt(p * (1 - p) / trials))


def window_of(sample):
    """Return the canvas in image coordinates: (x1, y1, x2, y2)."""
    (x, y), (height, width) = sample.origin_xy, sample.canvas_hw
    return -x, -y, width - x, height - y


# --- flip ---------------------------------------------------------------------------------------


def test_flip_pixels_and_boxes(make_sample):
    sample = make_sample(20, 30, (0, 1, 10, 5), (12.5, 0, 30, 20))
    image = sample.image.clone()
    apply(RandomHorizontalFlip(p=1), sample).materialize()
    assert torch.equal(sample.image, functional.horizontal_flip(image))
    assert sample.boxes.tolist() == [[20, 1, 30, 5], [0, 0, 17.5, 20]]


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_flip_probability(make_sample, p):
    op = RandomHorizontalFlip(p=p)
    sample = make_sample(2, 3)
    flips = 0
    for seed in range(2000):
        before = sample.is_flipped
        flips += apply(op, sample, seed).is_flipped != before
    happens_with(p, flips, 2000)


# --- resize -------------------------------------------------------------------------------------


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", [[12, 40], [64, 64], [30, 50], 16])
def test_resize_equals_torchvision(make_sample, size, interpolation, antialias):
    sample = make_sample(30, 50, (5, 3, 25, 30))
    expected = functional.resize(
        sample.image,
        size if isinstance(size, list) else [size],
        interpolation=v2.InterpolationMode(interpolation),
        antialias=antialias,
    )
    boxes = tv_tensors.BoundingBoxes(sample.boxes, format="XYXY", canvas_size=(30, 50))
    expected_boxes = functional.resize(boxes, list(expected.shape[1:])).numpy()
    apply(Resize(size=size, interpolation=interpolation, antialias=antialias), sample)
    assert torch.equal(sample.image, expected)
    np.testing.assert_allclose(sample.boxes, expected_boxes, rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "max_size", "canvas_hw", "expected"),
    [
        ([64, 32], None, (10, 20), (64, 32)),
        (640, None, (480, 960), (640, 1280)),
        (640, None, (960, 480), (1280, 640)),
        ([640], None, (480, 960), (640, 1280)),
        (200, 300, (300, 600), (150, 300)),
        (200, 300, (600, 300), (300, 150)),
        (200, 500, (300, 600), (200, 400)),
    ],
)
def test_resize_target_size(size, max_size, canvas_hw, expected):
    assert Resize(size=size, max_size=max_size).target_hw(canvas_hw) == expected


@pytest.mark.parametrize("size", [320, 480, 640, 800])
def test_resize_shorter_side_is_exact(size):
    op, limited = Resize(size=size), Resize(size=size, max_size=size)
    wrong = []
    for side in range(1, 1500):
        for long in (side, side + 13, 2 * side):
            expected = (size, size * long // side)
            if (
                op.target_hw((side, long)) != expected
                or op.target_hw((long, side)) != expected[::-1]
            ):
                wrong.append((side, long))
            if max(limited.target_hw((side, long))) != size:
                wrong.append((side, long, "limited"))
    assert wrong == []


def test_resize_shorter_side_equals_torchvision(noise):
    for short, long in ((77, 80), (154, 200), (49, 60)):
        expected = functional.resize(noise(short, long), [512]).shape[1:]
        assert Resize(size=512).target_hw((short, long)) == tuple(expected)


# --- zoom out -----------------------------------------------------------------------------------


def test_zoom_out_fills_canvas(make_sample):
    for seed in range(20):
        sample = make_sample(20, 30, (0, 0, 30, 20), (3, 4, 10, 9))
        image = sample.image.clone()
        apply(RandomZoomOut(fill=114, p=1, side_range=(1.5, 2.5)), sample, seed).materialize()
        left, top, right, bottom = (int(v) for v in sample.boxes[0])
        assert (right - left, bottom - top) == (30, 20)
        assert sample.boxes[1].tolist() == [left + 3, top + 4, left + 10, top + 9]
        assert torch.equal(sample.image[:, top:bottom, left:right], image)
        sample.image[:, top:bottom, left:right] = 114
        assert (sample.image == 114).all()


def test_zoom_out_is_uniform(make_sample):
    op, trials = RandomZoomOut(p=0.3), 3000
    sides, places = [], []
    for seed in range(trials):
        sample = apply(op, make_sample(100, 200), seed)
        height, width = sample.canvas_hw
        if (height, width) != (100, 200):
            assert width == pytest.approx(2 * height, abs=1)
            sides.append(width / 200)
            x, y = sample.origin_xy
            assert 0 <= x <= width - 200
            assert 0 <= y <= height - 100
            if width > 300:
                places.append((x / (width - 200), y / (height - 100)))
    happens_with(0.3, len(sides), trials)
    spread(sides, 1, 4)
    for axis in zip(*places, strict=True):
        spread(axis, 0, 1)
    assert abs(np.corrcoef(np.array(places).T)[0, 1]) < 0.2


@pytest.mark.parametrize("side_range", [(0.5, 2), (3, 2)])
def test_zoom_out_rejects_invalid_side_range(side_range):
    with pytest.raises(
        ValueError, match=r"side_range .*: give \(low, high\) with 1 <= low <= high"
    ):
        RandomZoomOut(side_range=side_range)


@pytest.mark.parametrize("seed", range(15))
def test_square_stays_in_its_box_after_zoom_and_resize(seed):
    image = torch.zeros((3, 61, 83), dtype=torch.uint8)
    image[:, 20:45, 30:62] = 255
    sample = Sample(image, np.array([[30.0, 20, 62, 45]]), np.array([0]), np.array([800.0]))
    compose = Compose(ops=[RandomZoomOut(p=1), RandomHorizontalFlip(), Resize(size=[200, 150])])
    sample = apply(compose, sample, seed)
    rows, columns = torch.nonzero(sample.image[0] >= 128, as_tuple=True)
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    # Half a pixel for the border of the image, half for the grid of the result.
    np.testing.assert_allclose(sample.boxes, [[float(v) for v in found]], atol=1.0 + 1e-9)


# --- IoU crop -----------------------------------------------------------------------------------

BOXES = [(5, 5, 30, 25), (40, 10, 95, 60), (60, 50, 80, 70), (0, 60, 12, 80)]


def crops(make_sample, count, boxes=BOXES, **options):
    """Yields (sample, image before) of crops of an image 100 wide and 80 high."""
    op = RandomIoUCrop(**options)
    for seed in range(count):
        sample = make_sample(80, 100, *boxes, seed=seed)
        image = sample.image.clone()
        yield apply(op, sample, seed), image


def test_iou_crop_keeps_centered_boxes_and_pixels(make_sample):
    boxes = np.array(BOXES, dtype=float)
    kept = Counter()
    for sample, image in crops(make_sample, 200):
        x1, y1, x2, y2 = window = window_of(sample)
        assert x1 >= 0 and y1 >= 0 and x2 <= 100 and y2 <= 80
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = ((centers > (x1, y1)) & (centers < (x2, y2))).all(axis=1)
        if window != (0, 0, 100, 80):
            assert sample.labels.tolist() == np.flatnonzero(inside).tolist()
        kept.update([len(sample.labels)])
        sample.materialize()
        for label, box in zip(sample.labels, sample.boxes, strict=True):
            visible = boxes[label].clip((x1, y1, x1, y1), (x2, y2, x2, y2))
            np.testing.assert_array_equal(box, visible - (x1, y1, x1, y1))
            left, top, right, bottom = visible.astype(int)
            new_left, new_top, new_right, new_bottom = box.astype(int)
            assert torch.equal(
                sample.image[:, new_top:new_bottom, new_left:new_right],
                image[:, top:bottom, left:right],
            )
    assert set(kept) == {1, 2, 3, 4}


@pytest.mark.parametrize("min_iou", [0.1, 0.5, 0.9])
def test_iou_crop_reaches_minimum_iou(make_sample, min_iou):
    boxes = [*BOXES, (1, 1, 99, 79)]
    ious = []
    for sample, _ in crops(make_sample, 60, boxes, sampler_options=[min_iou]):
        window = window_of(sample)
        if window != (0, 0, 100, 80):
            candidates = torch.tensor(boxes, dtype=torch.float64)[sample.labels]
            ious.append(float(box_iou(candidates, torch.tensor([window]).double()).max()))
    assert len(ious) > 40
    assert min(ious) >= min_iou
    assert min(ious) < min_iou + 0.1  # and few other candidates


def test_iou_crop_scale_and_aspect_ratio(make_sample):
    options = {
        "min_scale": 0.4, "max_scale": 0.8, "min_aspect_ratio": 0.8, "max_aspect_ratio": 1.5,
        "sampler_options": [0.0],
    }  # fmt: skip
    widths, ratios = [], []
    for sample, _ in crops(make_sample, 300, **options):
        height, width = sample.canvas_hw
        assert 39 <= width <= 80
        assert 31 <= height <= 64
        widths.append(width)
        ratios.append(width / height)
    assert min(widths) < 43
    assert max(widths) > 76
    assert 0.8 <= min(ratios) < 0.85
    assert 1.4 < max(ratios) <= 1.5


def is_cropped(sample):
    return sample.canvas_hw != (80, 100)


def test_iou_crop_probability(make_sample):
    results = [is_cropped(s) for s, _ in crops(make_sample, 500, p=0.3, sampler_options=[0.0])]
    happens_with(0.3, sum(results), len(results))


def test_iou_crop_option_one_keeps_image(make_sample):
    for sample, _ in crops(make_sample, 20, sampler_options=[1.0]):
        assert not is_cropped(sample)
        assert sample.boxes.tolist() == [list(b) for b in BOXES]
    results = [is_cropped(s) for s, _ in crops(make_sample, 500, sampler_options=[0.0, 1.0])]
    happens_with(0.5, sum(results), len(results))


def test_iou_crop_ends_with_impossible_options(make_sample):
    for sample, _ in crops(make_sample, 1, boxes=[(50, 40, 51, 41)], sampler_options=[0.9]):
        assert not is_cropped(sample)
        assert sample.boxes.tolist() == [[50, 40, 51, 41]]


def test_iou_crop_keeps_images_without_boxes(make_sample):
    assert not any(is_cropped(s) for s, _ in crops(make_sample, 20, boxes=[]))


def test_iou_crop_distribution_equals_torchvision(make_sample):
    count = 300
    theirs, ours = [], []
    for sample, _ in crops(make_sample, count):
        height, width = sample.canvas_hw
        ours.append((width, height, len(sample.labels)))
    op = v2.RandomIoUCrop()
    image = tv_tensors.Image(torch.zeros(1, 80, 100, dtype=torch.uint8))
    boxes = tv_tensors.BoundingBoxes(BOXES, format="XYXY", canvas_size=(80, 100))
    for _ in range(count):
        out = v2.SanitizeBoundingBoxes()(
            op({"image": image, "boxes": boxes, "labels": torch.arange(len(BOXES))})
        )
        height, width = out["image"].shape[1:]
        theirs.append((width, height, len(out["labels"])))
    ours, theirs = np.array(ours), np.array(theirs)
    error = np.sqrt((ours.var(0) + theirs.var(0)) / count)
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 4 * error).all()


# --- sanitize -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "is_kept"),
    [
        ((0, 0, 40, 30), True),
        ((1, 1, 3, 11), True),
        ((1, 1, 2.99, 11), False),
        ((1, 1, 11, 2.99), False),
        ((1, 1, 5, 6), True),  # 20 square pixels
        ((1, 1, 5, 5.9), False),
        ((-0.1, 1, 11, 11), False),
        ((1, -0.1, 11, 11), False),
        ((1, 1, 40.1, 11), False),
        ((1, 1, 11, 30.1), False),
        ((5, 5, 3, 20), False),
    ],
)
def test_sanitize_removes_small_and_outside_boxes(make_sample, box, is_kept):
    sample = make_sample(30, 40, (0, 0, 20, 20), box, (5, 5, 30, 30))
    apply(SanitizeBoundingBoxes(min_size=2, min_area=20), sample)
    expected = [0, 1, 2] if is_kept else [0, 2]
    assert sample.labels.tolist() == expected
    assert sample.area.tolist() == expected
    assert len(sample.boxes) == len(expected)


def test_sanitize_keeps_border_boxes_after_resize():
    # 147 * (640 / 147) exceeds 640 in floating point.
    lost = []
    for side in range(1, 1500):
        for shape, size in (((3, 1, side), [2, 640]), ((3, side, 1), [640, 2])):
            sample = Sample(
                image=torch.zeros(shape, dtype=torch.uint8),
                boxes=np.array([[0.0, 0, shape[2], shape[1]]]),
                labels=np.array([0]),
                area=np.array([1.0]),
            )
            apply(Compose(ops=[Resize(size=size), SanitizeBoundingBoxes(min_size=1)]), sample)
            if not len(sample.boxes):
                lost.append(shape)
    assert lost == []


# --- colors ------------------------------------------------------------------------------------


def drawn_changes(op, make_sample, count):
    for seed in range(count):
        sample = apply(op, make_sample(8, 8), seed)
        (change,) = sample.pixel_ops
        yield change


def test_distort_parameters_are_uniform_and_independent(make_sample):
    count = 3000
    changes = list(drawn_changes(RandomPhotometricDistort(p=0.4), make_sample, count))
    ranges = {
        "brightness": (0.875, 1.125),
        "contrast": (0.5, 1.5),
        "saturation": (0.5, 1.5),
        "hue": (-0.05, 0.05),
    }
    is_drawn = []
    for name, (low, high) in ranges.items():
        values = [getattr(c, name) for c in changes]
        is_drawn.append([v is not None for v in values])
        drawn = [v for v in values if v is not None]
        happens_with(0.4, len(drawn), count)
        spread(drawn, low, high)
    is_drawn.append([c.permutation is not None for c in changes])
    happens_with(0.4, sum(is_drawn[-1]), count)
    correlations = np.corrcoef(np.array(is_drawn, dtype=float)) - np.eye(5)
    assert np.abs(correlations).max() < 5 / np.sqrt(count)
    happens_with(0.5, sum(c.contrast_first for c in changes), count)
    orders = Counter(c.permutation for c in changes if c.permutation is not None)
    assert len(orders) == 6
    for times in orders.values():
        happens_with(1 / 6, times, sum(is_drawn[-1]))


@pytest.mark.parametrize("p", [0, 1])
def test_distort_probability(make_sample, p):
    ranges = {"brightness": (2, 2), "contrast": (3, 3), "saturation": (4, 4), "hue": (0.1, 0.1)}
    for change in drawn_changes(RandomPhotometricDistort(**ranges, p=p), make_sample, 20):
        values = (change.brightness, change.contrast, change.saturation, change.hue)
        assert values == ((2, 3, 4, pytest.approx(0.1)) if p else (None,) * 4)
        assert (change.permutation is not None) == bool(p)


def test_contrast_uses_mean_of_whole_image(make_sample):
    sample = make_sample(200, 300)
    sample.image[:, :, 200:] //= 3
    expected = float(gray(sample.image).mean())
    sample.set_window(0, 0, 40, 50)
    apply(RandomPhotometricDistort(p=1), sample)
    assert sample.pixel_ops[0].mean_gray == pytest.approx(expected, abs=2)


def test_distort_changes_pixels(make_sample):
    sample = make_sample(8, 9)
    image = sample.image.clone()
    apply(RandomPhotometricDistort(p=1), sample)
    expected = sample.pixel_ops[0](image)
    sample.materialize()
    assert torch.equal(sample.image, expected)
    assert not torch.equal(image, expected)


# --- windows of fixed size ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "canvas_hw"), [((7, 9), (7, 9)), (8, (8, 8)), ((3, 9), (4, 9)), ((2, 3), (4, 6))]
)
def test_pad_to_size(make_sample, size, canvas_hw):
    sample = make_sample(4, 6, (1, 1, 6, 4))
    image = sample.image.clone()
    apply(PadToSize(size=size, fill=9), sample).materialize()
    expected = functional.pad(image, [0, 0, canvas_hw[1] - 6, canvas_hw[0] - 4], fill=9)
    assert torch.equal(sample.image, expected)
    assert sample.boxes.tolist() == [[1, 1, 6, 4]]


def test_crop_pixels_and_boxes(make_sample):
    places = Counter()
    for seed in range(100):
        sample = make_sample(10, 12, (0, 0, 12, 10), (0, 0, 1, 1), (5, 4, 7, 6))
        image = sample.image.clone()
        apply(RandomCrop(size=(8, 9)), sample, seed)
        left, top, right, bottom = window_of(sample)
        places[left, top] += 1
        assert (right - left, bottom - top) == (9, 8)
        sample.materialize()
        assert torch.equal(sample.image, image[:, top:bottom, left:right])
        assert sample.boxes[0].tolist() == [0, 0, 9, 8]
        assert sample.boxes[-1].tolist() == [5 - left, 4 - top, 7 - left, 6 - top]
        assert sample.labels.tolist() == ([0, 1, 2] if left == top == 0 else [0, 2])
    assert set(places) == {(x, y) for x in range(4) for y in range(3)}


@pytest.mark.parametrize(
    ("padding", "pad_if_needed", "canvas_hw"),
    [
        (None, False, (4, 5)),
        (None, True, (8, 5)),
        (1, False, (6, 5)),
        ((0, 3), False, (8, 5)),
        ((2, 0), True, (8, 5)),
    ],
)
def test_crop_of_small_images(make_sample, padding, pad_if_needed, canvas_hw):
    op = RandomCrop(size=(8, 5), padding=padding, pad_if_needed=pad_if_needed, fill=7)
    tops = set()
    for seed in range(60):
        sample = make_sample(4, 6, (0, 0, 6, 4))
        image = sample.image.clone()
        apply(op, sample, seed)
        assert sample.canvas_hw == canvas_hw
        left, top, right, bottom = window_of(sample)
        tops.add(top)
        assert top <= 0
        assert bottom >= 4  # all rows are there
        sample.materialize()
        padded = functional.pad(image, [9, 9, 9, 9], fill=7)
        assert torch.equal(sample.image, padded[:, top + 9 : bottom + 9, left + 9 : right + 9])
        wanted = (max(0, -left), -top, min(5, 6 - left), 4 - top)
        assert sample.boxes.tolist() == [list(wanted)]
    assert tops == ({-4, -3, -2, -1, 0} if canvas_hw[0] == 8 and padding != (0, 3) else tops)


def test_crop_keeps_fill_of_zoom(make_sample):
    zoom = RandomZoomOut(fill=114, p=1, side_range=(2, 2))
    for other in (RandomCrop(size=(30, 40)), PadToSize(size=(30, 40))):
        sample = make_sample(20, 30)
        sample.image[:] = 1
        apply(Compose(ops=[zoom, other]), sample).materialize()
        assert set(sample.image.unique().tolist()) == {1, 114}


# --- the rest -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"),
    [(64, (64, 64)), ((64, 32), (64, 32)), ([64, 32], (64, 32)), ([8], (8, 8))],
)
def test_as_hw_accepts_int_and_pair(size, expected):
    assert as_hw(size) == expected


@pytest.mark.parametrize("op", [EmptyTransform(), ConvertPILImage()])
def test_operations_without_effect(make_sample, op):
    sample = make_sample(4, 6, (1, 1, 5, 3))
    image = sample.image.clone()
    assert apply(op, sample) is sample
    assert torch.equal(sample.image, image)
    assert sample.boxes.tolist() == [[1, 1, 5, 3]]


def test_normalize_by_hand(make_sample):
    sample = make_sample(4, 6)
    image = sample.image.clone()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    sample.flip()
    apply(Normalize(mean=mean, std=std), sample)
    scaled = functional.to_dtype(functional.horizontal_flip(image), torch.float32, scale=True)
    torch.testing.assert_close(sample.image, functional.normalize(scaled, list(mean), list(std)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [5, 3, 25, 13]),
        ({"fmt": "xyxy"}, [5, 3, 25, 13]),
        ({"fmt": "cxcywh"}, [15, 8, 20, 10]),
        ({"normalize": True}, [0.1, 0.15, 0.5, 0.65]),
        ({"fmt": "cxcywh", "normalize": True}, [0.3, 0.4, 0.4, 0.5]),
    ],
)
def test_convert_boxes(make_sample, options, expected):
    sample = apply(ConvertBoxes(**options), make_sample(20, 50, (5, 3, 25, 13)))
    np.testing.assert_allclose(sample.boxes, [expected])
    assert apply(ConvertBoxes(**options), make_sample(20, 50)).boxes.shape == (0, 4)


class Others:
    """Three images of one color each, with a box around the image."""

    SIZES = ((32, 40), (64, 32), (16, 16))

    def __len__(self):
        return len(self.SIZES)

    def load_readable(self, index):
        return index, one_color(100 * index + 50, *self.SIZES[index], label=index)


def one_color(value, height, width, label):
    return Sample(
        image=torch.full((3, height, width), value, dtype=torch.uint8),
        boxes=np.array([[0.0, 0, width, height]]),
        labels=np.array([label]),
        area=np.array([float(height * width)]),
    )


def mosaic(**options):
    op = Mosaic(**options)
    op.bind(Others())
    return op


def test_mosaic_contains_four_images_and_boxes():
    seen = set()
    for seed in range(40):
        sample = apply(mosaic(size=32, max_size=40), one_color(5, 64, 64, label=9), seed)
        sample.materialize()
        assert sample.image.shape == (3, 40, 40)
        seen.update(sample.labels.tolist())
        colors = {9: 5, 0: 50, 1: 150, 2: 250}
        covered = np.zeros((40, 40), dtype=int)
        for label, (x1, y1, x2, y2) in zip(sample.labels, sample.boxes.astype(int), strict=True):
            assert (sample.image[:, y1:y2, x1:x2] == colors[int(label)]).all()
            covered[y1:y2, x1:x2] += 1
        assert covered.max() == 1
        assert (sample.image.numpy()[:, covered == 0] == 0).all()
        assert len(sample.area) == len(sample.labels)
    assert seen == {9, 0, 1, 2}


def test_mosaic_tiles_are_in_corners():
    # The crop is the whole grid, 32 + 32 pixels. 0 and 2 are square after a resize.
    op = Mosaic(size=32, max_size=64)

    class Squares(Others):
        SIZES = ((16, 16), (32, 32), (64, 64))

    op.bind(Squares())
    rng = random.Random(7)
    picks = [rng.randrange(3) for _ in range(3)]
    sample = apply(op, one_color(5, 8, 8, label=9), 7)
    sample.materialize()
    places = [[0, 0, 32, 32], [32, 0, 64, 32], [0, 32, 32, 64], [32, 32, 64, 64]]
    assert sample.labels.tolist() == [9, *picks]
    assert sample.boxes.tolist() == places
    assert sample.area.tolist() == [64.0] + [Squares.SIZES[p][0] ** 2 for p in picks]
    for (x1, y1, x2, y2), value in zip(places, [5, *(100 * p + 50 for p in picks)], strict=True):
        assert (sample.image[:, y1:y2, x1:x2] == value).all()


def test_mosaic_requires_data_set(make_sample):
    with pytest.raises(ValueError, match=r"Mosaic needs a data set: use it inside Compose"):
        apply(Mosaic(size=32), make_sample(20, 30))


# --- the whole pipeline -------------------------------------------------------------------------

RECTANGLES = {
    0: ((12, 14, 70, 60), (230, 20, 30)),
    1: ((110, 90, 215, 150), (20, 220, 40)),
    2: ((150, 15, 230, 70), (30, 40, 240)),
}


def rectangles():
    """An image of 240x160 with rectangles of one color each on black."""
    image = torch.zeros((3, 160, 240), dtype=torch.uint8)
    for (x1, y1, x2, y2), color in RECTANGLES.values():
        image[:, y1:y2, x1:x2] = torch.tensor(color, dtype=torch.uint8)[:, None, None]
    boxes = np.array([box for box, _ in RECTANGLES.values()], dtype=np.float64)
    return Sample(image, boxes, np.arange(3), np.ones(3))


def test_pipeline_keeps_pixels_and_boxes_aligned(training_pipeline):
    checked, zoomed, cropped, flipped = 0, 0, 0, 0
    for seed in range(60):
        # The first operation with the same random numbers gives the changed colors.
        recolored = apply(training_pipeline.ops[0], rectangles(), seed)
        recolored.materialize()
        colors = [torch.zeros(3).short(), recolored.image[:, 0, 0].short()]
        for (x1, y1, _, _), _ in RECTANGLES.values():
            colors.append(recolored.image[:, y1 + 5, x1 + 5].short())

        sample = apply(training_pipeline, rectangles(), seed)
        assert sample.image.shape == (3, 640, 640)
        image = sample.image.numpy().astype(np.int16)
        distances = [np.abs(image - c.numpy()[:, None, None]).sum(0) for c in colors]
        smallest = functools.reduce(np.minimum, distances)
        for label, (cx, cy, width, height) in zip(sample.labels, 640 * sample.boxes, strict=True):
            if min(width, height) < 6:
                continue  # too thin for its color
            is_mine = distances[2 + label] == smallest
            rows, columns = (np.flatnonzero(is_mine.any(axis)) for axis in (1, 0))
            found = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            box = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
            np.testing.assert_allclose(found, box, atol=1.5)
            checked += 1
        middles = {
            int(label): box[0] for label, box in zip(sample.labels, sample.boxes, strict=True)
        }
        if 0 in middles and 1 in middles:
            flipped += middles[0] > middles[1]
        zoomed += len(sample.labels) == 3 and bool((sample.boxes[:, 2] < 0.15).any())
        cropped += len(sample.labels) < 3
    assert checked > 100
    assert min(zoomed, cropped, flipped) > 5


def test_pipeline_keeps_labels_and_areas_with_boxes(training_pipeline):
    for seed in range(30):
        sample = rectangles()
        sample.area = np.array([100.0, 101, 102])
        apply(training_pipeline, sample, seed)
        assert (sample.area == 100 + sample.labels).all()
        assert len(sample.boxes) == len(sample.labels)
        assert (sample.boxes >= 0).all()
        assert (sample.boxes <= 1).all()


@pytest.mark.parametrize("epoch", [0, 71])
def test_pipeline_accepts_images_without_boxes(training_pipeline, make_sample, epoch):
    for seed in range(8):
        sample = training_pipeline(make_sample(30, 50), random.Random(seed), epoch)
        assert sample.image.shape == (3, 640, 640)
        assert sample.boxes.shape == (0, 4)
        assert (len(sample.labels), len(sample.area)) == (0, 0)


def test_pipeline_keeps_images_in_last_epochs(training_pipeline):
    image = rectangles().image
    whole = functional.resize(image, [640, 640], antialias=True)
    both = {True: functional.horizontal_flip(whole), False: whole}
    for seed in range(6):
        sample = training_pipeline(rectangles(), random.Random(seed), 71)
        is_flipped = sample.boxes[0, 0] > 0.5
        assert torch.equal(sample.image, both[bool(is_flipped)])
