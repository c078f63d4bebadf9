"""Properties of boxes."""

import random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou, generalized_box_iou

from rtdetrv2_pytorch.src.data.augment.box_transforms import ConvertBoxes, SanitizeBoundingBoxes
from rtdetrv2_pytorch.src.data.augment.cropping import RandomCrop, RandomIoUCrop
from rtdetrv2_pytorch.src.data.augment.geometric import (
    PadToSize,
    RandomHorizontalFlip,
    RandomZoomOut,
    Resize,
)
from rtdetrv2_pytorch.src.data.augment.sample import Sample
from rtdetrv2_pytorch.src.data.images.orientation import OrientedImage
from rtdetrv2_pytorch.src.data.readers.geometry import clip_box
from rtdetrv2_pytorch.src.misc.boxes import cxcywh_to_xyxy, iou_and_giou, xyxy_to_cxcywh
from rtdetrv2_pytorch.src.misc.errors import DatasetError
from tests.properties.settings import examples

side = st.integers(8, 60)
unit = st.floats(0, 1, width=32)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def samples(draw):
    """Generate an image with up to five boxes of at least one pixel."""
    height, width = draw(side), draw(side)
    boxes = []
    for _ in range(draw(st.integers(0, 5))):
        x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        boxes.append((x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))))
    array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return Sample(
        image=torch.zeros(3, height, width, dtype=torch.uint8),
        boxes=array,
        labels=np.arange(len(array)),
        area=(array[:, 2] - array[:, 0]) * (array[:, 3] - array[:, 1]),
    )


def areas(boxes):
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


@examples(100)
@given(st.lists(st.tuples(unit, unit, unit, unit), min_size=1, max_size=6))
def test_box_format_conversions_are_inverse(rows):
    boxes = torch.tensor(rows, dtype=torch.float64)
    torch.testing.assert_close(xyxy_to_cxcywh(cxcywh_to_xyxy(boxes)), boxes)
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes)


@examples(100)
@given(st.lists(st.tuples(unit, unit, unit, unit), min_size=2, max_size=6))
def test_iou_matches_torchvision_and_is_symmetric_and_bounded(rows):
    boxes = torch.tensor(rows, dtype=torch.float64)
    boxes = torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:] + 1e-3), dim=1)
    iou, giou = iou_and_giou(boxes[:, None], boxes[None])
    torch.testing.assert_close(iou, box_iou(boxes, boxes))
    torch.testing.assert_close(giou, generalized_box_iou(boxes, boxes))
    torch.testing.assert_close(iou, iou.T)
    assert ((giou >= -1) & (giou <= iou + 1e-9) & (iou <= 1 + 1e-9)).all()
    torch.testing.assert_close(iou.diagonal(), torch.ones(len(boxes), dtype=torch.float64))


@examples(100)
@given(samples())
def test_double_flip_is_identity(sample):
    before = sample.boxes.copy()
    sample.flip()
    assert np.allclose(areas(sample.boxes), areas(before))
    width = sample.canvas_hw[1]
    assert np.allclose(sample.boxes[:, 0] + before[:, 2], width)
    sample.flip()
    assert np.array_equal(sample.boxes, before)
    assert not sample.is_flipped


@examples(100)
@given(samples(), seeds, side, side)
def test_augmented_boxes_lie_inside_canvas(sample, seed, height, width):
    rng = random.Random(seed)
    given_areas = dict(zip(sample.labels.tolist(), sample.area.tolist(), strict=True))
    for op in (RandomZoomOut(p=0.5), RandomIoUCrop(), RandomHorizontalFlip()):
        sample = op(sample, rng)
    # No operation resizes: a crop can only shrink boxes.
    for label, area in zip(sample.labels.tolist(), areas(sample.boxes).tolist(), strict=True):
        assert area <= given_areas[label] + 1e-6
    for op in (SanitizeBoundingBoxes(), Resize(size=[height, width]), SanitizeBoundingBoxes()):
        sample = op(sample, rng)
    assert sample.image.shape == (3, height, width)
    assert len(sample.boxes) == len(sample.labels) == len(sample.area)
    assert (sample.boxes >= 0).all()
    assert (sample.boxes[:, [0, 2]] <= width).all()
    assert (sample.boxes[:, [1, 3]] <= height).all()
    pixels = sample.boxes.copy()
    normalized = ConvertBoxes(fmt="cxcywh", normalize=True)(sample, rng).boxes
    assert ((normalized >= 0) & (normalized <= 1)).all()
    back = cxcywh_to_xyxy(torch.from_numpy(normalized)).numpy() * (width, height, width, height)
    assert np.allclose(back, pixels)


@examples(60)
@given(samples(), side, side)
def test_resize_and_inverse_resize_is_identity(sample, height, width):
    before, size = sample.boxes.copy(), list(sample.canvas_hw)
    for hw in ([height, width], size):
        sample = Resize(size=hw)(sample, random.Random(0))
    assert np.allclose(sample.boxes, before)


@examples(60)
@given(samples(), seeds, st.integers(60, 90))
def test_padding_keeps_boxes_and_full_crop_is_identity(sample, seed, size):
    before = sample.boxes.copy()
    padded = PadToSize(size=[size, size])(sample, random.Random(seed))
    assert np.array_equal(padded.boxes, before)
    cropped = RandomCrop(size=[size, size])(padded, random.Random(seed))
    assert np.array_equal(cropped.boxes, before)


@examples(150)
@given(
    st.tuples(*[st.integers(-40, 90)] * 4).filter(lambda b: b[0] != b[2] and b[1] != b[3]),
    side,
    side,
)
def test_clipped_box_is_intersection_with_image(box, width, height):
    columns = set(range(*sorted((box[0], box[2])))) & set(range(width))
    rows = set(range(*sorted((box[1], box[3])))) & set(range(height))
    try:
        (x1, y1), (x2, y2) = clip_box([box[:2], box[2:]], (width, height))
    except DatasetError:
        assert not columns or not rows
        return
    assert (set(range(x1, x2)), set(range(y1, y2))) == (columns, rows)
    assert clip_box([(x1, y1), (x2, y2)], (width, height)) == [(x1, y1), (x2, y2)]


@examples(100)
@given(side, side, st.integers(1, 8), st.lists(st.tuples(unit, unit), min_size=1, max_size=4))
def test_rotation_keeps_points_inside_and_distances(width, height, orientation, points):
    picture = OrientedImage((width, height), orientation)
    points = [(x * width, y * height) for x, y in points]
    turned = picture.turn(points)
    upright_width, upright_height = picture.size_wh
    for x, y in turned:
        assert -1e-9 <= x <= upright_width + 1e-9
        assert -1e-9 <= y <= upright_height + 1e-9
    (x0, y0), (u0, v0) = points[0], turned[0]
    for (x, y), (u, v) in zip(points, turned, strict=True):
        assert np.isclose((x - x0) ** 2 + (y - y0) ** 2, (u - u0) ** 2 + (v - v0) ** 2)
