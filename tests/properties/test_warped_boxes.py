"""Properties of boxes under rotation, shear, scaling, turns and flips."""

import math
import random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from rtdetrv2_pytorch.src.data.augment.geometric import RandomAffine, RandomQuarterTurn
from rtdetrv2_pytorch.src.data.augment.sample import Sample
from tests.properties.settings import examples
from tests.properties.test_boxes import samples, seeds

angle = st.floats(0, 180)


class Recorder(random.Random):
    """Records the values of ranges."""

    def __init__(self, seed):
        super().__init__(seed)
        self.values = []

    def uniform(self, a, b):
        self.values.append(super().uniform(a, b))
        return self.values[-1]


def moved_corners(box, size_wh, degrees, factor, slant, shift_xy):
    """Compute the corners of a moved box with complex numbers, one by one."""
    center = complex(size_wh[0] / 2, size_wh[1] / 2)
    corners = []
    for x in (box[0], box[2]):
        for y in (box[1], box[3]):
            point = (complex(x, y) - center) * factor
            point = complex(point.real + point.imag * math.tan(math.radians(slant)), point.imag)
            # Counterclockwise on the screen, where y points down.
            point *= complex(math.cos(math.radians(degrees)), -math.sin(math.radians(degrees)))
            corners.append(point + center + complex(*shift_xy))
    return corners


@examples(80)
@given(samples(), seeds, angle, st.floats(0, 60), st.floats(0.3, 2), st.floats(0, 0.5))
def test_affine_boxes_are_tight_boxes_of_the_corners(sample, seed, degrees, slant, factor, move):
    (height, width), before = sample.canvas_hw, sample.boxes.copy()
    rng = Recorder(seed)
    op = RandomAffine(
        degrees=degrees, shear=slant, scale=(factor, 2 * factor), translate=(move, move / 2), p=1
    )
    op(sample, rng)
    turned, scaled, slanted, x, y = rng.values
    expected, labels = [], []
    for label, box in enumerate(before):
        corners = moved_corners(
            box, (width, height), turned, scaled, slanted, (x * width, y * height)
        )
        columns, rows = [c.real for c in corners], [c.imag for c in corners]
        x1, x2, y1, y2 = min(columns), max(columns), min(rows), max(rows)
        if 0 < (x1 + x2) / 2 < width and 0 < (y1 + y2) / 2 < height:
            expected.append((max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)))
            labels.append(label)
    assert sample.labels.tolist() == labels
    np.testing.assert_allclose(sample.boxes, np.reshape(expected, (-1, 4)), atol=1e-6)


@examples(60)
@given(samples(), seeds, st.integers(0, 3))
def test_turned_boxes_contain_the_same_pixels(sample, seed, quarters):
    """Integer boxes: each box contains the pixel values that it had before."""
    height, width = sample.canvas_hw
    generator = torch.Generator().manual_seed(seed)
    sample.image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    contents = [sorted(pixels_in(sample, box)) for box in sample.boxes]
    sample.turn(quarters)
    if seed % 2:
        sample.flip_vertically()
    RandomQuarterTurn(p=0.5)(sample, random.Random(seed))
    sample.materialize()
    assert [sorted(pixels_in(sample, box)) for box in sample.boxes] == contents


def pixels_in(sample: Sample, box):
    x1, y1, x2, y2 = (round(value) for value in box)
    return sample.image[0, y1:y2, x1:x2].flatten().tolist()


@examples(40)
@given(samples(), angle)
def test_rotation_and_its_inverse_contain_the_box(sample, degrees):
    """A box that is rotated and rotated back contains the box, because boxes only grow."""
    before = sample.boxes.copy()
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    sample.warp(matrix)
    middle = sample.boxes.copy()
    sample._warp = None
    sample.warp(np.linalg.inv(matrix))
    assert (sample.boxes[:, :2] <= before[:, :2] + 1e-9).all()
    assert (sample.boxes[:, 2:] >= before[:, 2:] - 1e-9).all()
    area = np.prod(middle[:, 2:] - middle[:, :2], axis=1)
    assert (area >= np.prod(before[:, 2:] - before[:, :2], axis=1) - 1e-6).all()
