"""Lazily computed pixels equal pixels computed after every operation."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from rtdetrv2_pytorch.src.data.augment.box_transforms import ConvertBoxes
from rtdetrv2_pytorch.src.data.augment.color import PhotometricChange
from rtdetrv2_pytorch.src.data.augment.sample import Sample


class Eager:
    """Reference implementation: each operation is applied to all pixels immediately."""

    def __init__(self, sample):
        self.pixels, self.boxes = sample.image.clone(), sample.boxes.copy()

    @property
    def canvas_hw(self):
        return tuple(self.pixels.shape[1:])

    def set_window(self, left, top, width, height):
        self.pixels = functional.crop(self.pixels, top, left, height, width)  # 0 outside
        self.boxes = self.boxes - (left, top, left, top)

    def flip(self):
        self.pixels = functional.horizontal_flip(self.pixels)
        x1, y1, x2, y2 = self.boxes.T
        width = self.canvas_hw[1]
        self.boxes = np.stack((width - x2, y1, width - x1, y2), axis=1)

    def turn(self, quarters):
        for _ in range(quarters):
            x1, y1, x2, y2 = self.boxes.T
            width = self.canvas_hw[1]
            self.boxes = np.stack((y1, width - x2, y2, width - x1), axis=1)
            self.pixels = torch.rot90(self.pixels, 1, (1, 2))


def maybe_flip(targets, rng):
    if rng.random() < 0.5:
        for target in targets:
            target.flip()


def maybe_turn(targets, rng):
    quarters = rng.randrange(4)
    for target in targets:
        target.turn(quarters)


def grow(targets, rng):
    height, width = targets[0].canvas_hw
    left, top, right, bottom = (rng.randint(0, 9) for _ in range(4))
    for target in targets:
        target.set_window(-left, -top, width + left + right, height + top + bottom)


def shrink(targets, rng):
    height, width = targets[0].canvas_hw
    new_width, new_height = rng.randint(1, width), rng.randint(1, height)
    left, top = rng.randint(0, width - new_width), rng.randint(0, height - new_height)
    for target in targets:
        target.set_window(left, top, new_width, new_height)


def equal(sample, eager):
    assert sample.canvas_hw == eager.canvas_hw
    assert torch.equal(sample.image, eager.pixels)
    np.testing.assert_allclose(sample.boxes, eager.boxes, atol=1e-9)


@pytest.mark.parametrize("seed", range(40))
def test_lazy_zoom_flip_and_crop_equal_eager(make_sample, seed):
    rng = random.Random(seed)
    sample = make_sample(13, 17, (1, 2, 5, 9), (0, 0, 17, 13), seed=seed)
    targets = (sample, Eager(sample))
    for step in (grow, grow, shrink, shrink):
        maybe_flip(targets, rng)
        step(targets, rng)
    maybe_flip(targets, rng)
    sample.materialize()
    equal(*targets)


@pytest.mark.parametrize("seed", range(40))
def test_lazy_turns_flips_and_windows_equal_eager(make_sample, seed):
    rng = random.Random(seed)
    sample = make_sample(13, 17, (1, 2, 5, 9), (0, 0, 17, 13), seed=seed)
    targets = (sample, Eager(sample))
    for step in rng.sample([grow, shrink, maybe_flip, maybe_turn, maybe_turn, grow], 6):
        step(targets, rng)
    size = rng.choice([None, (20, 30)])
    eager = targets[1]
    sample.materialize(size)
    if size is None:
        equal(*targets)
    else:  # the border of empty canvas is rounded to pixels
        scale = np.array([30 / eager.canvas_hw[1], 20 / eager.canvas_hw[0]] * 2)
        np.testing.assert_allclose(sample.boxes, eager.boxes * scale, atol=1e-9)
        assert sample.image.shape == (3, 20, 30)


def test_turned_image_is_resized_like_torchvision(make_sample):
    sample = make_sample(30, 50)
    expected = functional.resize(torch.rot90(sample.image, 1, (1, 2)), [24, 20], antialias=True)
    sample.turn(1)
    sample.materialize((24, 20))
    # The image is resized before it is turned, so rows and columns are rounded in another order.
    assert (sample.image.int() - expected.int()).abs().max() <= 1


def test_double_flip_is_identity(make_sample):
    sample = make_sample(5, 8, (1, 2, 4, 5))
    before = sample.image.clone()
    sample.flip()
    assert sample.boxes.tolist() == [[4, 2, 7, 5]]
    sample.flip()
    assert not sample.is_flipped
    assert sample.boxes.tolist() == [[1, 2, 4, 5]]
    sample.materialize()
    assert torch.equal(sample.image, before)


def test_flip_by_hand():
    sample = Sample(
        image=torch.tensor([[[1, 2, 3]]] * 3, dtype=torch.uint8),
        boxes=np.array([[0.0, 0, 1, 1], [0.5, 0, 3, 1]]),
        labels=np.array([0, 1]),
        area=np.array([1.0, 2]),
    )
    sample.flip()
    sample.materialize()
    assert sample.image.tolist() == [[[3, 2, 1]]] * 3
    assert sample.boxes.tolist() == [[2, 0, 3, 1], [0, 0, 2.5, 1]]


def test_cropped_parts_stay_cropped(make_sample):
    sample = make_sample(13, 17, (1, 2, 5, 9))
    targets = (sample, Eager(sample))
    for target in targets:
        target.set_window(4, 3, 6, 5)
        target.set_window(-2, -2, 12, 11)
    sample.materialize()
    equal(*targets)


def test_empty_canvas_has_fill_value(make_sample):
    sample = make_sample(2, 3)
    image = sample.image.clone()
    sample.fill = 114
    sample.set_window(-1, -2, 6, 5)
    sample.materialize()
    assert sample.image.shape == (3, 5, 6)
    assert torch.equal(sample.image[:, 2:4, 1:4], image)
    sample.image[:, 2:4, 1:4] = 114
    assert (sample.image == 114).all()


def test_window_outside_image_is_filled(make_sample):
    for left, top in ((3, 0), (-5, 0), (0, 2), (0, -5)):
        sample = make_sample(2, 3)
        sample.fill = 7
        sample.set_window(left, top, 4, 5)
        sample.materialize((6, 8))
        assert sample.image.tolist() == [[[7] * 8] * 6] * 3


@pytest.mark.parametrize("is_flipped", [False, True])
@pytest.mark.parametrize("size_hw", [(10, 14), (40, 60), (20, 60)])
@pytest.mark.parametrize(
    ("mode", "antialias"),
    [
        (InterpolationMode.BILINEAR, True),
        (InterpolationMode.BILINEAR, False),
        (InterpolationMode.BICUBIC, True),
        (InterpolationMode.NEAREST, True),
    ],
)
def test_resized_crop_equals_torchvision(make_sample, is_flipped, size_hw, mode, antialias):
    sample = make_sample(30, 50, (10, 4, 30, 24))
    crop = functional.crop(sample.image, 4, 10, 20, 30)
    expected = functional.resize(crop, list(size_hw), interpolation=mode, antialias=antialias)
    if is_flipped:
        expected = functional.horizontal_flip(expected)
        sample.flip()
        sample.set_window(10, 4, 30, 20)  # of the flipped canvas: the same as from the left
    else:
        sample.set_window(10, 4, 30, 20)
    sample.materialize(size_hw, mode=mode.value, antialias=antialias)
    assert torch.equal(sample.image, expected)
    # The box is 5 pixels left of the center of a crop of width 30, and covers its height.
    height, width = size_hw
    wanted = (width / 3, 0, width, height) if is_flipped else (0, 0, width * 2 / 3, height)
    np.testing.assert_allclose(sample.boxes, [wanted])
    assert (sample.canvas_hw, sample.origin_xy, sample.is_flipped) == (size_hw, (0, 0), False)


def test_shrunk_canvas_equals_pil_away_from_border(make_sample):
    sample = make_sample(24, 32, (0, 0, 32, 24))
    canvas = np.zeros((48, 64, 3), dtype=np.uint8)
    canvas[8:32, 16:48] = sample.image.permute(1, 2, 0).numpy()
    expected = np.array(Image.fromarray(canvas).resize((32, 24), Image.Resampling.BILINEAR))
    sample.set_window(-16, -8, 64, 48)
    sample.materialize((24, 32))
    result = sample.image.permute(1, 2, 0).numpy()
    assert sample.boxes.tolist() == [[8, 4, 24, 16]]
    difference = np.abs(result.astype(int) - expected)
    assert difference[5:15, 9:23].max() <= 1
    outside = np.ones((24, 32), dtype=bool)
    outside[4:16, 8:24] = False
    assert (result[outside] == 0).all()
    assert (result[4:16, 8:24].mean(axis=(0, 1)) > 100).all()


@pytest.mark.parametrize("seed", range(20))
def test_image_border_matches_its_box(make_sample, seed):
    rng = random.Random(seed)
    sample = make_sample(30, 40, (0, 0, 40, 30))
    sample.image = torch.full((3, 30, 40), 255, dtype=torch.uint8)
    grow((sample,), rng)
    maybe_flip((sample,), rng)
    sample.materialize((rng.randint(20, 200), rng.randint(20, 200)))
    rows, columns = torch.nonzero(sample.image[0] > 127, as_tuple=True)
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    np.testing.assert_allclose(sample.boxes, [[float(v) for v in found]], atol=0.5 + 1e-9)


@pytest.mark.parametrize(("top", "white"), [(40, [[4, 5]]), (99, [])])
def test_tiny_image_is_one_pixel_or_outside(top, white):
    sample = Sample(
        image=torch.full((3, 1, 1), 255, dtype=torch.uint8),
        boxes=np.zeros((0, 4)),
        labels=np.zeros(0, dtype=np.int64),
        area=np.zeros(0),
    )
    sample.set_window(-50, -top, 100, 100)
    sample.materialize((10, 10))
    assert sample.image.shape == (3, 10, 10)
    assert torch.nonzero(sample.image.amin(0) == 255).tolist() == white
    assert sample.image.sum() == 3 * 255 * len(white)


def test_keep_filters_boxes_labels_and_areas(make_sample):
    sample = make_sample(30, 40, (0, 0, 1, 1), (0, 0, 2, 2), (0, 0, 3, 3))
    sample.keep(np.array([True, False, True]))
    assert sample.boxes[:, 2].tolist() == [1, 3]
    assert sample.labels.tolist() == [0, 2]
    assert sample.area.tolist() == [0, 2]


def test_clip_boxes(make_sample):
    sample = make_sample(30, 40, (-3, -4, 50, 60), (5, 6, 7, 8), (-9, 31, -1, 99))
    sample.clip_boxes()
    assert sample.boxes.tolist() == [[0, 0, 40, 30], [5, 6, 7, 8], [0, 30, 0, 30]]


def test_pixel_ops_run_in_order(make_sample):
    sample = make_sample(4, 5)
    image = sample.image.clone()
    sample.add_pixel_op(lambda x: x // 2)
    sample.add_pixel_op(lambda x: x + 100)
    assert torch.equal(sample.image, image)
    sample.materialize()
    assert torch.equal(sample.image, image // 2 + 100)
    sample.materialize()  # without pending operations
    assert torch.equal(sample.image, image // 2 + 100)


def test_pixel_ops_include_filled_canvas(make_sample):
    sample = make_sample(4, 5)
    image = sample.image.clone()
    sample.fill = 100
    sample.set_window(-1, 0, 6, 4)
    sample.add_pixel_op(lambda x: x // 2)
    sample.set_window(0, -1, 6, 5)  # canvas added later keeps its fill
    sample.materialize()
    assert torch.equal(sample.image[:, 1:, 1:], image // 2)
    assert (sample.image[:, 1:, 0] == 50).all()
    assert (sample.image[:, 0] == 100).all()


@pytest.mark.parametrize(("size_hw", "seen"), [((5, 5), 25), ((40, 50), 80), (None, 80)])
def test_pixel_ops_see_needed_pixels_only(make_sample, size_hw, seen):
    counts = []

    def count(image):
        counts.append(image.shape[1] * image.shape[2])
        return image

    sample = make_sample(30, 40)
    sample.add_pixel_op(count)
    sample.set_window(3, 4, 10, 8)
    sample.materialize(size_hw)
    assert counts == [seen]


@pytest.mark.parametrize("is_flipped", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        PhotometricChange(brightness=0.9),
        PhotometricChange(contrast=0.6, mean_gray=90.0),
        PhotometricChange(saturation=0.5),
        PhotometricChange(permutation=(2, 0, 1)),
    ],
)
def test_pixel_ops_before_or_after_shrinking_differ_by_rounding(make_sample, change, is_flipped):
    sample = make_sample(30, 40)
    expected = functional.resize(change(sample.image), [11, 13], antialias=True)
    sample.add_pixel_op(change)
    if is_flipped:
        expected = functional.horizontal_flip(expected)
        sample.flip()
    sample.materialize((11, 13))
    # Two changes round down, and resizing rounds.
    assert (sample.image.int() - expected.int()).abs().max() <= 2


def test_crowd_regions_move_like_boxes(make_sample):
    """Window, flip and resize, then cxcywh 0..1; the same region as box and as crowd."""
    sample = make_sample(70, 60, (10, 20, 40, 60))
    sample.crowd_boxes, sample.crowd_labels = sample.boxes.copy(), np.array([3])
    sample.set_window(-5, 4, 80, 90, fill=0)
    sample.flip()
    sample.materialize((45, 160))
    ConvertBoxes(fmt="cxcywh", normalize=True)(sample, random.Random(0))
    np.testing.assert_allclose(sample.crowd_boxes, sample.boxes)
    assert sample.crowd_labels.tolist() == [3]
