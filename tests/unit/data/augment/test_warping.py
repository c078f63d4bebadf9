"""Flips, turns and affine maps: pixels against torchvision, and boxes against pixels."""

import cmath
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from rtdetrv2_pytorch.src.data.augment.geometric import (
    RandomAffine,
    RandomQuarterTurn,
    RandomVerticalFlip,
)
from rtdetrv2_pytorch.src.data.augment.sample import Sample
from rtdetrv2_pytorch.src.data.augment.warping import (
    corner_boxes,
    rotation,
    shear,
    shift,
    stretch,
)


class Highest(random.Random):
    """Samples the end of every range."""

    def random(self):
        return 0.0

    def uniform(self, a, b):
        return b


def about_center(matrix, height, width):
    return shift(width / 2, height / 2) @ matrix @ shift(-width / 2, -height / 2)


def smooth(make_sample, height, width, *boxes):
    """Return a sample whose pixels change slowly, so that small shifts change few gray levels."""
    sample = make_sample(height, width, *boxes)
    y, x = np.mgrid[0:height, 0:width]
    planes = [128 + 100 * np.sin(x / 9 + c) * np.cos(y / 11 - c) for c in range(3)]
    sample.image = torch.from_numpy(np.stack(planes)).round().to(torch.uint8)
    return sample


@pytest.mark.parametrize("quarters", [0, 1, 2, 3, 4])
def test_turns_equal_numpy(make_sample, quarters):
    sample = make_sample(4, 6, (0, 1, 2, 4))
    expected = np.rot90(sample.image.numpy(), quarters, axes=(1, 2))
    sample.turn(quarters)
    assert sample.canvas_hw == expected.shape[1:]
    sample.materialize()
    assert np.array_equal(sample.image.numpy(), expected)
    boxes = [[0, 1, 2, 4], [1, 4, 4, 6], [4, 0, 6, 3], [0, 0, 3, 2], [0, 1, 2, 4]]
    assert sample.boxes.tolist() == [boxes[quarters]]


def test_vertical_flip_by_hand(make_sample):
    sample = make_sample(4, 6, (0, 1, 2, 4))
    expected = functional.vertical_flip(sample.image)
    RandomVerticalFlip(p=1)(sample, random.Random(0)).materialize()
    assert torch.equal(sample.image, expected)
    assert sample.boxes.tolist() == [[0, 0, 2, 3]]


def test_quarter_turns_have_equal_probability(make_sample):
    counts = dict.fromkeys((0, 1, 2, 3), 0)
    for seed in range(600):
        sample = make_sample(2, 3, (0, 0, 1, 1))
        RandomQuarterTurn()(sample, random.Random(seed))
        corner = tuple(sample.boxes[0, :2].tolist())
        counts[{(0, 0): 0, (0, 2): 1, (2, 1): 2, (1, 0): 3}[corner]] += 1
    assert all(abs(count - 150) < 5 * math.sqrt(150) for count in counts.values())


@pytest.mark.parametrize("size_hw", [None, (40, 60), (120, 90)])
def test_affine_equals_torchvision(make_sample, size_hw):
    height, width = 60, 80
    sample = smooth(make_sample, height, width, (20, 10, 50, 40), (0, 0, 30, 20))
    boxes = tv_tensors.BoundingBoxes(
        torch.from_numpy(sample.boxes), format="XYXY", canvas_size=(height, width)
    )
    # Angles of torchvision are clockwise.
    arguments = {"angle": -7.0, "translate": [8.0, 3.0], "scale": 1.1, "shear": [0.0, 0.0]}
    pixels = functional.affine(
        sample.image, **arguments, interpolation=InterpolationMode.BILINEAR, fill=9
    )
    moved = functional.affine(boxes, **arguments).numpy()
    op = RandomAffine(degrees=7, translate=(0.1, 0.05), scale=(1, 1.1), fill=9, p=1)
    op(sample, Highest())
    np.testing.assert_allclose(sample.boxes, moved, atol=1e-4)
    sample.materialize(size_hw)
    if size_hw is not None:
        pixels = functional.resize(pixels, list(size_hw), antialias=True)
    inside = functional.affine(torch.ones(1, height, width), **arguments)
    inside = functional.resize(inside, list(sample.image.shape[1:]), antialias=True)
    framed = torch.nn.functional.pad(inside, (4, 4, 4, 4))
    inside = -torch.nn.functional.max_pool2d(-framed, 9, stride=1)[0] > 0.999
    difference = (sample.image.int() - pixels.int()).abs().amax(0)
    assert inside.float().mean() > 0.6
    assert difference[inside].max() <= 3
    assert sample.image[:, 1, 1].tolist() == [9, 9, 9]  # moved to the right


def test_shear_by_hand(make_sample):
    sample = make_sample(40, 40, (10, 10, 20, 20))
    RandomAffine(degrees=0, shear=45, p=1)(sample, Highest())
    # Rows move by their distance from the middle row: -10 at y = 10, 0 at y = 20.
    np.testing.assert_allclose(sample.boxes, [[0, 10, 20, 20]], atol=1e-9)


@settings(max_examples=200, deadline=None)
@given(
    boxes=st.lists(st.tuples(*[st.floats(-50, 500)] * 2, *[st.floats(0, 300)] * 2), max_size=5),
    degrees=st.floats(-180, 180),
    slant=st.floats(-60, 60),
    scale=st.tuples(st.floats(0.1, 4), st.floats(0.1, 4)),
    offset=st.tuples(st.floats(-200, 200), st.floats(-200, 200)),
)
def test_box_is_the_tight_box_of_its_mapped_corners(boxes, degrees, slant, scale, offset):
    """Compute each corner independently, with complex numbers."""
    matrix = shift(*offset) @ rotation(degrees) @ shear(slant) @ stretch(*scale)
    turn = cmath.exp(-1j * math.radians(degrees))  # counterclockwise, with y down

    def mapped(x, y):
        x, y = x * scale[0], y * scale[1]
        return complex(x + y * math.tan(math.radians(slant)), y) * turn + complex(*offset)

    corners = [(x, y, x + w, y + h) for x, y, w, h in boxes]
    found = corner_boxes(np.array(corners, dtype=np.float64).reshape(-1, 4), matrix)
    for box, (x1, y1, x2, y2) in zip(found, corners, strict=True):
        points = [mapped(x, y) for x in (x1, x2) for y in (y1, y2)]
        left, right = min(p.real for p in points), max(p.real for p in points)
        top, bottom = min(p.imag for p in points), max(p.imag for p in points)
        assert box == pytest.approx([left, top, right, bottom], abs=1e-6)


def test_rotation_by_90_degrees_equals_turn(make_sample):
    turned, rotated = (make_sample(8, 8, (1, 2, 5, 4)) for _ in range(2))
    turned.turn(1)
    rotated.warp(about_center(rotation(90), 8, 8))
    for sample in (turned, rotated):
        sample.materialize()
    np.testing.assert_allclose(rotated.boxes, turned.boxes)
    assert (rotated.image.int() - turned.image.int()).abs().max() <= 1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size_hw", [None, (30, 40), (100, 140)])
def test_boxes_contain_their_rotated_pixels(make_sample, seed, size_hw):
    rng = random.Random(seed)
    sample = make_sample(60, 80, (30, 20, 55, 45))
    sample.image = torch.zeros(3, 60, 80, dtype=torch.uint8)
    sample.image[:, 20:45, 30:55] = 255
    if seed % 2:
        sample.turn(1)
        sample.set_window(-6, -3, 72, 90)
    sample.warp(about_center(rotation(rng.uniform(-20, 20)), *sample.canvas_hw))
    sample.flip()
    sample.transpose()
    sample.set_window(2, 3, sample.canvas_hw[1] - 5, sample.canvas_hw[0] - 4)
    sample.materialize(size_hw)
    rows, columns = torch.nonzero(sample.image[0] > 20, as_tuple=True)
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    np.testing.assert_allclose(sample.boxes, [[float(v) for v in found]], atol=1.5)


@pytest.mark.parametrize(
    "move",
    [
        lambda sample: sample.flip(),
        lambda sample: sample.flip_vertically(),
        lambda sample: sample.turn(1),
        lambda sample: sample.set_window(5, 7, 40, 30),
        lambda sample: sample.set_window(-5, 7, 60, 30),
        lambda sample: sample.warp(about_center(rotation(-4), 60, 80)),
        lambda sample: sample.add_pixel_op(lambda image: image // 2 + 50),
    ],
)
def test_pending_warp_equals_computed_warp(make_sample, move):
    samples = [smooth(make_sample, 60, 80, (20, 10, 50, 40)) for _ in range(2)]
    for sample in samples:
        sample.warp(about_center(rotation(9), 60, 80), fill=30)
    samples[1].materialize()
    samples[1].fill = 30
    for sample in samples:
        move(sample)
        sample.materialize()
    pending, computed = samples
    np.testing.assert_allclose(pending.boxes, computed.boxes, atol=1e-9)
    difference = (pending.image.int() - computed.image.int()).abs().amax(0)
    assert (difference > 1).sum() <= 3  # the border can differ by rounding


def test_warp_keeps_the_fill_of_an_earlier_canvas(make_sample):
    sample = make_sample(20, 20)
    sample.image[:] = 100
    sample.set_window(-20, 0, 40, 20, fill=200)
    sample.warp(shift(0, 10), fill=5)
    sample.materialize()
    assert (sample.image[:, :10] == 5).all()
    assert (sample.image[:, 11:, :20] == 200).all()
    assert (sample.image[:, 11:, 21:] == 100).all()


def test_warp_to_outside_is_empty(make_sample):
    sample = make_sample(10, 10)
    sample.warp(shift(50, 0), fill=7)
    sample.materialize((4, 4))
    assert (sample.image == 7).all()


def test_zoom_out_after_rotation_keeps_cropped_parts_cropped(make_sample):
    sample = make_sample(20, 20)
    sample.image[:] = 255
    sample.warp(about_center(stretch(3, 3), 20, 20))
    sample.set_window(-10, -10, 40, 40)
    sample.materialize()
    expected = torch.zeros(40, 40, dtype=torch.uint8)
    expected[10:30, 10:30] = 255
    assert torch.equal(sample.image[0], expected)


def test_affine_drops_boxes_that_leave(make_sample):
    sample = make_sample(40, 40, (0, 0, 10, 10), (26, 10, 36, 30), (36, 0, 40, 4))
    sample.crowd_boxes, sample.crowd_labels = np.array([[0.0, 0, 4, 4]]), np.array([1])
    RandomAffine(degrees=0, translate=(0.25, 0), p=1)(sample, Highest())
    assert sample.boxes.tolist() == [[10, 0, 20, 10]]
    assert sample.labels.tolist() == [0]
    assert sample.crowd_boxes.tolist() == [[10, 0, 14, 4]]
    sample = make_sample(40, 40, (20, 10, 38, 30))
    RandomAffine(degrees=0, translate=(0.25, 0), p=1)(sample, Highest())
    assert sample.boxes.tolist() == [[30, 10, 40, 30]]


def test_affine_has_its_probability_and_ranges(make_sample):
    shifts = []
    for seed in range(400):
        sample = make_sample(100, 100, (40, 40, 60, 60))
        RandomAffine(degrees=0, translate=(0.2, 0.0), p=0.5)(sample, random.Random(seed))
        shifts.append(sample.boxes[0, 0] - 40)
    moved = [each for each in shifts if each]
    assert abs(len(moved) - 200) < 50
    assert -20 <= min(moved) < -18
    assert 18 < max(moved) <= 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (0.0, 1.0)}, r"scale \(0.0, 1.0\): give \(low, high\) with 0 < low <= high"),
        ({"scale": (1.2, 1.0)}, r"scale \(1.2, 1.0\)"),
        ({"shear": 90.0}, r"shear 90.0: give less than 90 degrees"),
    ],
)
def test_invalid_ranges(options, message):
    with pytest.raises(ValueError, match=message):
        RandomAffine(**options)


def test_type_of_sample_is_kept(make_sample):
    sample = make_sample(20, 30, (1, 2, 9, 8))
    result = RandomAffine(degrees=10, p=1)(sample, random.Random(0))
    assert isinstance(result, Sample)
    result.materialize((16, 16))
    assert result.image.dtype == torch.uint8
    assert result.image.shape == (3, 16, 16)
