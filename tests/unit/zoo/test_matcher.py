"""Matching against hand-computed pairs and brute force, and edge cases."""

from itertools import permutations

import pytest
import torch

from rtdetrv2_pytorch.src.misc.errors import TrainingDiverged
from rtdetrv2_pytorch.src.structures import GroundTruth
from rtdetrv2_pytorch.src.zoo.rtdetr.matcher import HungarianMatcher
from tests.reference_losses import plain_cost, plain_matching

WEIGHTS = {"cost_class": 2, "cost_bbox": 5, "cost_giou": 2}


def make_matcher(**options):
    return HungarianMatcher(**({"weight_dict": WEIGHTS, "use_focal_loss": True} | options))


def random_layer(batch, num_queries, num_classes=5, num_sets=None):
    shape = (batch, num_queries) if num_sets is None else (num_sets, batch, num_queries)
    size = torch.rand(*shape, 2) * 0.4 + 0.05
    center = size / 2 + torch.rand(*shape, 2) * (1 - size)
    return {
        "pred_logits": torch.randn(*shape, num_classes) * 2,
        "pred_boxes": torch.cat((center, size), dim=-1),
    }


def pairs_of(found):
    return [list(zip(q.tolist(), b.tolist(), strict=True)) for q, b in found["indices"]]


def test_nearest_boxes_by_hand_in_any_order():
    left, right = [0.2, 0.5, 0.2, 0.2], [0.8, 0.5, 0.2, 0.2]
    layer = {
        "pred_logits": torch.zeros(1, 3, 1),
        "pred_boxes": torch.tensor([[right, [0.5, 0.9, 0.1, 0.1], left]]),
    }
    target = {"labels": torch.tensor([0, 0]), "boxes": torch.tensor([left, right])}
    assert pairs_of(make_matcher()(layer, [target])) == [[(0, 1), (2, 0)]]


def test_class_cost_decides_between_equal_boxes():
    box = [0.5, 0.5, 0.2, 0.2]
    logits = torch.tensor([[[2.0, -2.0], [-2.0, 2.0]]])
    layer = {"pred_logits": logits, "pred_boxes": torch.tensor([[box, box]])}
    target = {"labels": torch.tensor([1, 0]), "boxes": torch.tensor([box, box])}
    for focal in (True, False):
        found = make_matcher(use_focal_loss=focal)(layer, [target])
        assert pairs_of(found) == [[(0, 1), (1, 0)]]


@pytest.mark.parametrize("focal", [True, False])
def test_total_cost_is_minimum_of_all_assignments(make_targets, focal):
    layer, targets = random_layer(4, 5), make_targets(3, 1, 0, 5)
    found = pairs_of(make_matcher(use_focal_loss=focal)(layer, targets))
    for image, target in enumerate(targets):
        cost = plain_cost(
            layer["pred_logits"][image], layer["pred_boxes"][image], target, focal=focal
        )
        count = len(target["labels"])
        lowest = min(
            sum(cost[q, b].item() for b, q in enumerate(queries))
            for queries in permutations(range(5), count)
        )
        assert sorted(b for _, b in found[image]) == list(range(count))
        assert sum(cost[q, b].item() for q, b in found[image]) == pytest.approx(lowest, abs=1e-4)


@pytest.mark.parametrize("focal", [True, False])
def test_pairs_match_reference_matcher(make_targets, focal):
    layer, targets = random_layer(4, 30), make_targets(1, 0, 12, 7)
    found = pairs_of(make_matcher(use_focal_loss=focal)(layer, targets))
    assert found == plain_matching(layer, targets, focal=focal)
    assert all(image == sorted(image) for image in found)


def test_sets_and_images_are_matched_independently(make_targets):
    matcher, targets = make_matcher(), make_targets(3, 0, 4)
    layers = random_layer(3, 9, num_sets=4)
    truth = GroundTruth.from_targets(targets, torch.device("cpu"))
    found = matcher.match(layers["pred_logits"], layers["pred_boxes"], truth)
    rows = []
    for s in range(4):
        layer = {key: value[s] for key, value in layers.items()}
        for image, (queries, boxes) in enumerate(matcher(layer, targets)["indices"]):
            start = sum(truth.counts[:image])
            rows += [
                (s, image, q, b + start)
                for q, b in zip(queries.tolist(), boxes.tolist(), strict=True)
            ]
    together = (found.set_index, found.image_index, found.query_index, found.truth_index)
    assert list(zip(*(index.tolist() for index in together), strict=True)) == rows


def test_more_boxes_than_queries_leaves_boxes_unmatched(make_targets):
    layer, targets = random_layer(1, 4), make_targets(9)
    ((queries, boxes),) = make_matcher()(layer, targets)["indices"]
    assert queries.tolist() == [0, 1, 2, 3]
    assert len(set(boxes.tolist())) == 4
    assert pairs_of({"indices": [(queries, boxes)]}) == plain_matching(layer, targets)


def test_batch_without_boxes_has_no_pairs(make_targets):
    found = make_matcher()(random_layer(2, 4), make_targets(0, 0))["indices"]
    assert [(q.tolist(), b.tolist()) for q, b in found] == [([], []), ([], [])]
    assert {index.dtype for pair in found for index in pair} == {torch.int64}


@pytest.mark.parametrize("name", ["cost_class", "cost_bbox", "cost_giou"])
def test_missing_weight_is_zero(make_targets, name):
    layer, targets = random_layer(1, 8), make_targets(4)
    alone = make_matcher(weight_dict={name: 3.0})
    zeros = make_matcher(weight_dict=dict.fromkeys(WEIGHTS, 0) | {name: 1.0})
    assert pairs_of(alone(layer, targets)) == pairs_of(zeros(layer, targets))
    others = [make_matcher(weight_dict={n: 1.0}) for n in WEIGHTS if n != name]
    assert any(pairs_of(m(layer, targets)) != pairs_of(alone(layer, targets)) for m in others)


@pytest.mark.parametrize(
    "weights", [{}, {"cost_class": 0, "cost_bbox": 0}, {"cost_class": 1, "cost_box": 5}]
)
def test_unknown_or_zero_weights_are_rejected(weights):
    with pytest.raises(
        ValueError,
        match="weight_dict .*: give cost_class, cost_bbox and cost_giou, at least one of them a",
    ):
        HungarianMatcher(weight_dict=weights)


def test_alpha_and_gamma_change_class_cost(make_targets):
    layer, targets = random_layer(1, 1), make_targets(1)
    truth = GroundTruth.from_targets(targets, torch.device("cpu"))
    matcher = make_matcher(weight_dict={"cost_class": 1}, alpha=0.6, gamma=3.0)
    p = layer["pred_logits"].sigmoid()[0, 0, targets[0]["labels"][0]].item()
    expected = torch.tensor(p).double()
    expected = (
        0.6 * (1 - expected) ** 3 * -expected.log() - 0.4 * expected**3 * -(1 - expected).log()
    )
    found = matcher._cost(layer["pred_logits"][None], layer["pred_boxes"][None], truth)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("key", ["pred_logits", "pred_boxes"])
def test_error_names_images_with_non_finite_predictions(make_targets, key, value):
    layer, targets = random_layer(3, 6), make_targets(2, 0, 1)
    layer[key][1, 3, 0] = value  # an image without boxes has no costs
    with pytest.raises(
        TrainingDiverged,
        match=r"not finite for images with ids \[101\]; inspect these images and their boxes, "
        "lower the learning rate, or train without mixed precision",
    ):
        make_matcher()(layer, targets)
    layer[key][2, 0, 0] = value
    with pytest.raises(TrainingDiverged, match=r"ids \[101, 102\]"):
        make_matcher()(layer, targets)


def test_error_uses_batch_index_without_image_ids(make_targets):
    layer, targets = random_layer(3, 6), make_targets(2, 1, 1)
    for target in targets:
        del target["image_id"]
    layer["pred_logits"][2] = torch.nan
    with pytest.raises(TrainingDiverged, match=r"ids \[2\]"):
        make_matcher()(layer, targets)


def test_large_finite_logits_are_accepted(make_targets):
    layer, targets = random_layer(2, 6), make_targets(2, 1)
    layer["pred_logits"] *= 1e4
    expected = plain_matching(layer, targets)
    assert pairs_of(make_matcher()(layer, targets)) == expected


def test_matching_uses_float32(make_targets):
    layer, targets = random_layer(2, 10), make_targets(4, 6)
    half = {key: value.bfloat16() for key, value in layer.items()}
    as_float = {key: value.float() for key, value in half.items()}
    assert pairs_of(make_matcher()(half, targets)) == plain_matching(as_float, targets)


def test_pairs_are_repeated_for_sets(make_targets):
    layer, targets = random_layer(2, 6), make_targets(2, 1)
    truth = GroundTruth.from_targets(targets, torch.device("cpu"))
    one = make_matcher().match(layer["pred_logits"][None], layer["pred_boxes"][None], truth)
    three = one.repeat_for_sets(3)
    assert three.set_index.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    for name in ("image_index", "query_index", "truth_index"):
        assert getattr(three, name).tolist() == getattr(one, name).tolist() * 3
