"""Anchors by hand and against a loop."""

import math

import pytest
import torch

from rtdetrv2_pytorch.src.zoo.rtdetr.anchors import anchor_logits


def test_one_by_two_grid_by_hand():
    logits, valid = anchor_logits([(1, 2)], margin=0.01)
    expected = torch.tensor([[[0.25, 0.5, 0.05, 0.05], [0.75, 0.5, 0.05, 0.05]]])
    torch.testing.assert_close(logits.sigmoid(), expected)
    assert valid.all()


def test_sigmoid_of_logits_is_box():
    logits, _ = anchor_logits([(1, 1)], margin=0.01)
    expected = [0.0, 0.0, -math.log(19), -math.log(19)]
    torch.testing.assert_close(logits, torch.tensor([[expected]]))


def test_anchors_are_row_major_with_doubled_sides_per_level():
    logits, valid = anchor_logits([(2, 3), (1, 2), (1, 1), (1, 1)], margin=0.01)
    third = 1 / 3
    expected = [
        *([cx, cy, 0.05, 0.05] for cy in (0.25, 0.75) for cx in (third / 2, 0.5, 1 - third / 2)),
        *([cx, 0.5, 0.1, 0.1] for cx in (0.25, 0.75)),
        [0.5, 0.5, 0.2, 0.2],
        [0.5, 0.5, 0.4, 0.4],
    ]
    torch.testing.assert_close(logits.sigmoid(), torch.tensor([expected]))
    assert logits.dtype == torch.float32
    assert valid.shape == (1, 10, 1)


def plain_validity(level_sizes, margin):
    return [
        all(margin < v < 1 - margin for v in ((x + 0.5) / w, (y + 0.5) / h, 0.05 * 2**level))
        for level, (h, w) in enumerate(level_sizes)
        for y in range(h)
        for x in range(w)
    ]


@pytest.mark.parametrize(("margin", "some_valid"), [(0.01, True), (0.07, True), (0.3, False)])
def test_boxes_near_border_are_invalid_and_infinite(margin, some_valid):
    level_sizes = [(60, 20), (30, 10)]
    logits, valid = anchor_logits(level_sizes, margin=margin)
    expected = torch.tensor(plain_validity(level_sizes, margin))
    assert torch.equal(valid.flatten(), expected)
    assert expected.any() == some_valid
    assert not expected.all()
    assert logits[0][expected].isfinite().all()
    assert (logits[0][~expected] == torch.inf).all()


def test_coordinate_at_margin_is_invalid():
    _, valid = anchor_logits([(1, 50)], margin=0.01)  # the first center is at 0.5 / 50 = 0.01
    assert valid.flatten().tolist() == [False, *[True] * 48, False]


def test_published_size_has_8400_boxes_with_invalid_border():
    sizes = [(80, 80), (40, 40), (20, 20)]
    logits, valid = anchor_logits(sizes, margin=0.01)
    # Only on the finest level is half a cell, 1/160, under the margin: its outermost ring.
    assert valid.sum() == 8400 - (80 * 80 - 78 * 78)
    assert valid.sum() == sum(plain_validity(sizes, 0.01))
    assert logits.shape == (1, 8400, 4)


def test_level_without_cells_is_rejected():
    with pytest.raises(ValueError, match=r"^level 1 is 0x3 cells: the image is too small$"):
        anchor_logits([(1, 6), (0, 3)], margin=0.01)
    with pytest.raises(ValueError, match="level 0 is 2x0 cells: the image is too small"):
        anchor_logits([(2, 0)], margin=0.01)
