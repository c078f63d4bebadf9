"""Box formats and overlaps against torchvision."""

import pytest
import torch
from torchvision.ops import (
    box_convert,
    box_iou,
    generalized_box_iou,
    generalized_box_iou_loss,
)

from rtdetrv2_pytorch.src.misc.boxes import cxcywh_to_xyxy, iou_and_giou, xyxy_to_cxcywh


def random_xyxy(*shape):
    top_left = torch.rand(*shape, 2)
    return torch.cat((top_left, top_left + 0.05 + torch.rand(*shape, 2)), dim=-1)


def test_box_formats_match_torchvision():
    torch.testing.assert_close(
        cxcywh_to_xyxy(torch.tensor([[10.0, 20.0, 4.0, 6.0]])),
        torch.tensor([[8.0, 17.0, 12.0, 23.0]]),
    )
    torch.testing.assert_close(
        xyxy_to_cxcywh(torch.tensor([[8.0, 17.0, 12.0, 23.0]])),
        torch.tensor([[10.0, 20.0, 4.0, 6.0]]),
    )


def test_formats_match_torchvision_and_round_trip():
    boxes = random_xyxy(3, 5)
    centered = xyxy_to_cxcywh(boxes)
    torch.testing.assert_close(centered, box_convert(boxes, "xyxy", "cxcywh"))
    torch.testing.assert_close(cxcywh_to_xyxy(centered), box_convert(centered, "cxcywh", "xyxy"))
    torch.testing.assert_close(cxcywh_to_xyxy(centered), boxes)


@pytest.mark.parametrize(
    ("one", "other", "iou", "giou"),
    [
        ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7, 1 / 7 - 2 / 9),  # 1 of 7 covered, 2 of 9 empty
        ([0, 0, 1, 1], [2, 0, 3, 1], 0.0, -1 / 3),  # disjoint: one of three cells is empty
        ([0, 0, 1, 1], [1, 0, 2, 1], 0.0, 0.0),  # touching
        ([0, 0, 4, 4], [1, 1, 2, 2], 1 / 16, 1 / 16),  # inside
        ([3, 5, 7, 9], [3, 5, 7, 9], 1.0, 1.0),  # equal
    ],
)
def test_overlaps_by_hand(one, other, iou, giou):
    found = iou_and_giou(torch.tensor(one).float(), torch.tensor(other).float())
    torch.testing.assert_close(torch.stack(found), torch.tensor([iou, giou]))


def test_elementwise_overlaps_match_torchvision():
    boxes, others = random_xyxy(40), random_xyxy(40)
    iou, giou = iou_and_giou(boxes, others)
    torch.testing.assert_close(iou, box_iou(boxes, others).diagonal())
    torch.testing.assert_close(giou, generalized_box_iou(boxes, others).diagonal())


def test_shapes_broadcast():
    predictions, truths = random_xyxy(2, 7), random_xyxy(3)
    iou, giou = iou_and_giou(predictions[:, None], truths[:, None])
    assert iou.shape == giou.shape == (2, 3, 7)
    for layer in range(2):
        torch.testing.assert_close(iou[layer], box_iou(truths, predictions[layer]))
        torch.testing.assert_close(giou[layer], generalized_box_iou(truths, predictions[layer]))


def test_overlaps_are_invariant_to_order_position_and_scale():
    boxes, others = random_xyxy(20), random_xyxy(20)
    expected = torch.stack(iou_and_giou(boxes, others))
    torch.testing.assert_close(torch.stack(iou_and_giou(others, boxes)), expected)
    moved = torch.stack(iou_and_giou(boxes * 8 - 3, others * 8 - 3))
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-5)
    assert (expected[1] <= expected[0]).all()
    assert (expected[1] > -1).all()


def test_gradients_match_torchvision():
    boxes, others = random_xyxy(30).requires_grad_(), random_xyxy(30)
    (1 - iou_and_giou(boxes, others)[1]).sum().backward()
    found, boxes.grad = boxes.grad, None
    generalized_box_iou_loss(boxes, others, reduction="sum").backward()
    torch.testing.assert_close(found, boxes.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("one", "other", "iou", "giou"),
    [
        ([0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], 0.0, 0.0),  # equal points
        ([0.2, 0.2, 0.2, 0.2], [0.6, 0.7, 0.6, 0.7], 0.0, -1.0),  # two points
        ([0.2, 0.2, 0.2, 0.6], [0.2, 0.2, 0.2, 0.6], 0.0, 0.0),  # equal lines
        ([0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0], 0.0, 0.0),  # a point in a box
    ],
)
def test_boxes_without_area(one, other, iou, giou):
    boxes, others = torch.tensor(one).requires_grad_(), torch.tensor(other).requires_grad_()
    found = iou_and_giou(boxes, others)
    torch.testing.assert_close(torch.stack(found), torch.tensor([iou, giou]))
    (found[0] + found[1]).backward()
    assert boxes.grad.isfinite().all()
    assert others.grad.isfinite().all()
