"""Loss functions on two or three entries by hand, and against torchvision."""

import math

import numpy as np
import pytest
import torch
from torchvision.ops import sigmoid_focal_loss as torchvision_focal

from rtdetrv2_pytorch.src.structures import GroundTruth
from rtdetrv2_pytorch.src.zoo.rtdetr.losses import (
    inside_crowds,
    matchability_aware_loss,
    sigmoid_focal_loss,
    sum_per_set,
    varifocal_loss,
)
from rtdetrv2_pytorch.src.zoo.rtdetr.matcher import Matches


def matches_of(*rows):
    """Rows of (set, image, query, truth)."""
    return Matches(*torch.tensor(rows, dtype=torch.int64).reshape(-1, 4).T)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_varifocal_by_hand():
    # One set, one image, two queries, one class; the second query matches with quality 0.6.
    logits = torch.tensor([[[[-1.0], [2.0]]]])
    found = varifocal_loss(
        logits,
        matches_of((0, 0, 1, 0)),
        torch.tensor([0]),
        torch.tensor([0.6]),
        alpha=0.75,
        gamma=2.0,
    )
    background = 0.75 * sigmoid(-1) ** 2 * -math.log(1 - sigmoid(-1))
    matched = 0.6 * -(0.6 * math.log(sigmoid(2)) + 0.4 * math.log(1 - sigmoid(2)))
    torch.testing.assert_close(found, torch.tensor([background + matched]))


def test_varifocal_weights_have_no_gradient():
    logits = torch.tensor([[[[0.3], [1.0]]]], requires_grad=True)
    found = varifocal_loss(
        logits,
        matches_of((0, 0, 1, 0)),
        torch.tensor([0]),
        torch.tensor([0.6]),
        alpha=0.5,
        gamma=1.0,
    )
    found.sum().backward()
    # d BCE / d logit = sigmoid - target, times the weight alone.
    expected = [0.5 * sigmoid(0.3) * sigmoid(0.3), 0.6 * (sigmoid(1) - 0.6)]
    torch.testing.assert_close(logits.grad.flatten(), torch.tensor(expected))


@pytest.mark.parametrize("gamma", [1.0, 1.5, 2.0])
def test_matchability_aware_loss_has_the_formula_of_the_paper(gamma):
    """Loss and gradient of every entry, in loops; the weight p^gamma has no gradient."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 4, 3, generator=generator, dtype=torch.float64).requires_grad_()
    rows, labels = [(0, 0, 1, 0), (0, 1, 3, 1), (1, 0, 0, 0)], torch.tensor([2, 0, 1])
    quality = torch.tensor([0.9, 0.05, 0.5], dtype=torch.float64)
    found = matchability_aware_loss(logits, matches_of(*rows), labels, quality, gamma=gamma)
    matched = {
        (*row[:3], int(label)): float(q)
        for row, label, q in zip(rows, labels, quality, strict=True)
    }
    expected, gradient = [0.0, 0.0], torch.zeros_like(logits)
    for place in np.ndindex(2, 2, 4, 3):
        p = sigmoid(float(logits.detach()[place]))
        if place in matched:
            q = matched[place] ** gamma
            expected[place[0]] += -q * math.log(p) - (1 - q) * math.log(1 - p)
            gradient[place] = p - q
        else:
            expected[place[0]] += -(p**gamma) * math.log(1 - p)
            gradient[place] = p**gamma * p
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(torch.autograd.grad(found.sum(), logits)[0], gradient)


def test_matchability_aware_loss_of_boxes_apart_is_finite():
    """A GIoU below 0 counts as 0."""
    logits = torch.tensor([[[[0.5]]]])
    arguments = (logits, matches_of((0, 0, 0, 0)), torch.tensor([0]))
    found = matchability_aware_loss(*arguments, torch.tensor([-0.4]), gamma=1.5)
    torch.testing.assert_close(found, torch.tensor([-math.log(1 - sigmoid(0.5))]))


def test_focal_by_hand():
    logits = torch.tensor([[[[-1.0], [2.0]]]])
    matches = matches_of((0, 0, 1, 0))
    found = sigmoid_focal_loss(logits, matches, torch.tensor([0]), alpha=0.2, gamma=2.0)
    background = 0.8 * sigmoid(-1) ** 2 * -math.log(1 - sigmoid(-1))
    matched = 0.2 * (1 - sigmoid(2)) ** 2 * -math.log(sigmoid(2))
    torch.testing.assert_close(found, torch.tensor([background + matched]))


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.6, 1.0)])
def test_focal_loss_and_gradient_match_torchvision(alpha, gamma):
    logits = (torch.randn(3, 2, 6, 4) * 3).requires_grad_()
    rows = [(0, 0, 1, 0), (0, 1, 5, 1), (2, 1, 2, 0)]
    labels = torch.tensor([3, 0, 2])
    target = torch.zeros(3, 2, 6, 4)
    for (s, image, query, _), label in zip(rows, labels, strict=True):
        target[s, image, query, label] = 1
    found = sigmoid_focal_loss(logits, matches_of(*rows), labels, alpha=alpha, gamma=gamma)
    expected = torchvision_focal(logits, target, alpha, gamma).sum((1, 2, 3))
    torch.testing.assert_close(found, expected)
    mine, theirs = (torch.autograd.grad(f.sum(), logits)[0] for f in (found, expected))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("function", ["varifocal", "focal"])
def test_extreme_logits_have_finite_losses_and_gradients(function):
    logits = torch.tensor([[[[200.0, -200.0], [-200.0, 200.0]]]], requires_grad=True)
    matches, labels = matches_of((0, 0, 0, 0), (0, 0, 1, 0)), torch.tensor([0, 0])
    if function == "varifocal":
        quality = torch.tensor([0.9, 0.0])
        loss = varifocal_loss(logits, matches, labels, quality, alpha=0.75, gamma=2.0)
    else:
        loss = sigmoid_focal_loss(logits, matches, labels, alpha=0.25, gamma=2.0)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()


def test_background_only_without_pairs():
    logits = torch.randn(2, 1, 3, 2)
    none, labels = matches_of(), torch.empty(0, dtype=torch.int64)
    found = varifocal_loss(logits, none, labels, torch.empty(0), alpha=0.75, gamma=2.0)
    p = logits.sigmoid()
    torch.testing.assert_close(found, (0.75 * p**2 * -torch.log(1 - p)).sum((1, 2, 3)))
    assert sum_per_set(torch.empty(0), none, 2).tolist() == [0, 0]


def test_values_are_summed_per_set():
    matches = matches_of((0, 0, 0, 0), (2, 0, 0, 0), (2, 1, 0, 1))
    assert sum_per_set(torch.tensor([1.0, 2.0, 4.0]), matches, 4).tolist() == [1, 0, 6, 0]


def crowds_of(*rows):
    """Rows of (image, label, cx, cy, w, h)."""
    table = torch.tensor(rows)
    return GroundTruth(
        labels=table[:, 1].long(),
        boxes=table[:, 2:],
        image_index=table[:, 0].long(),
        counts=(),
        image_ids=(),
    )


def test_predictions_inside_a_crowd_of_their_class():
    # The left half of the second image is a crowd of class 1, twice.
    crowds = crowds_of((1, 1, 0.25, 0.5, 0.5, 1.0), (1, 1, 0.25, 0.5, 0.5, 1.0))
    boxes = torch.tensor(
        [
            [0.2, 0.5, 0.2, 0.2],  # inside
            [0.49, 0.5, 0.2, 0.2],  # 55 % inside
            [0.51, 0.5, 0.2, 0.2],  # 45 % inside
            [0.5, 0.5, 1.0, 1.0],  # contains it
        ]
    ).expand(3, 2, 4, 4)
    found = inside_crowds(boxes, crowds, 2)
    assert found.shape == (3, 2, 4, 2)
    assert found[:, 0].sum() == 0
    assert found[:, 1, :, 0].sum() == 0
    assert found[:, 1, :, 1].tolist() == [[True, True, False, False]] * 3


@pytest.mark.parametrize("loss", ["vfl", "mal", "focal"])
def test_ignored_entries_have_no_loss_unless_matched(loss):
    logits = torch.randn(1, 1, 3, 2, requires_grad=True)
    ignored = torch.zeros(1, 1, 3, 2, dtype=torch.bool)
    ignored[0, 0, :2, 1] = True  # class 1 of the first two queries; the second matches it
    pairs, labels = matches_of((0, 0, 1, 0)), torch.tensor([1])
    options = {"alpha": 0.75, "gamma": 2.0, "ignored": ignored}
    if loss == "vfl":
        found = varifocal_loss(logits, pairs, labels, torch.tensor([0.6]), **options)
    elif loss == "mal":
        options.pop("alpha")
        found = matchability_aware_loss(logits, pairs, labels, torch.tensor([0.6]), **options)
    else:
        found = sigmoid_focal_loss(logits, pairs, labels, **options)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert (gradient[0, 0] != 0).tolist() == [[True, False], [True, True], [True, True]]
