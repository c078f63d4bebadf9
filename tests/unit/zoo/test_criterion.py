"""Loss terms and gradients against the reference losses of tests/reference_losses.py."""

import pytest
import torch

from rtdetrv2_pytorch.src.misc import distributed
from rtdetrv2_pytorch.src.misc.errors import TrainingDiverged
from rtdetrv2_pytorch.src.zoo.rtdetr.criterion import RTDETRCriterionv2
from rtdetrv2_pytorch.src.zoo.rtdetr.matcher import HungarianMatcher
from tests.reference_losses import WEIGHTS, plain_losses

VFL = ["loss_vfl", "loss_bbox", "loss_giou"]


def make_criterion(*, losses=("vfl", "boxes"), focal_matching=True, **options):
    matcher = HungarianMatcher(
        weight_dict={"cost_class": 2, "cost_bbox": 5, "cost_giou": 2},
        use_focal_loss=focal_matching,
    )
    settings = {"weight_dict": WEIGHTS, "alpha": 0.75, "gamma": 2.0, "num_classes": 5}
    return RTDETRCriterionv2(matcher=matcher, losses=losses, **(settings | options))


class Outputs:
    """Random outputs of a decoder, with the tensors that gradients are taken of."""

    def __init__(self, batch, num_queries, *, num_layers=3, num_classes=5, encoder_classes=5):
        self.leaves = []
        layers = [self.layer(batch, num_queries, num_classes) for _ in range(num_layers)]
        self.outputs = {
            **layers[-1],
            "aux_outputs": layers[:-1],
            "enc_aux_outputs": [self.layer(batch, num_queries, encoder_classes)],
            "enc_meta": {"class_agnostic": encoder_classes == 1},
        }

    def layer(self, batch, num_queries, num_classes):
        logits = (torch.randn(batch, num_queries, num_classes) * 2 - 1).requires_grad_()
        boxes = torch.randn(batch, num_queries, 4).requires_grad_()
        self.leaves += [logits, boxes]
        return {"pred_logits": logits, "pred_boxes": boxes.sigmoid()}

    def with_denoising(self, targets, groups, num_layers=3):
        counts = [len(t["labels"]) for t in targets]
        width = max(1, *counts)
        layers = [self.layer(len(targets), 2 * width * groups, 5) for _ in range(num_layers)]
        self.outputs["dn_aux_outputs"] = layers
        self.outputs["dn_meta"] = {
            "dn_num_group": groups,
            "dn_num_split": [2 * width * groups, 0],
            "dn_positive_idx": [
                torch.tensor(
                    [g * 2 * width + j for g in range(groups) for j in range(n)], dtype=torch.int64
                )
                for n in counts
            ],
        }
        return self


def assert_terms(found, expected, rtol=1e-4):
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=rtol, abs=1e-5), name


def assert_equal_losses(case, targets, criterion, **plain):
    plain = {"alpha": criterion.alpha, "gamma": criterion.gamma, "names": VFL} | plain
    found = criterion(case.outputs, targets)
    expected = plain_losses(case.outputs, targets, **plain)
    assert_terms(found, expected)
    mine, theirs = (
        torch.autograd.grad(sum(terms.values()), case.leaves, retain_graph=True)
        for terms in (found, expected)
    )
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    return found


@pytest.mark.parametrize("counts", [(0, 1, 5), (4,), (1, 1), (0, 0, 3, 0)])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_terms_and_gradients_of_all_layers(make_targets, counts, num_layers):
    targets = make_targets(*counts)
    case = Outputs(len(counts), 12, num_layers=num_layers).with_denoising(targets, 3, num_layers)
    found = assert_equal_losses(case, targets, make_criterion())
    assert len(found) == 3 * (1 + (num_layers - 1) + 1 + num_layers)


def test_s_model_has_21_published_terms(make_targets):
    targets = make_targets(2)
    found = make_criterion()(Outputs(1, 9).with_denoising(targets, 2).outputs, targets)
    suffixes = ["", "_aux_0", "_aux_1", "_enc_0", "_dn_0", "_dn_1", "_dn_2"]
    assert set(found) == {name + suffix for name in VFL for suffix in suffixes}
    assert all(value.dim() == 0 and value.isfinite() for value in found.values())


@pytest.mark.parametrize("overlap", ["iou", "giou", None])
def test_overlap_weights_box_loss(make_targets, overlap):
    targets = make_targets(3, 0, 2)
    case = Outputs(3, 10).with_denoising(targets, 2)
    criterion = make_criterion(boxes_weight_format=overlap)
    assert_equal_losses(case, targets, criterion, overlap_format=overlap)


def test_shared_pairs_of_last_layer(make_targets):
    targets = make_targets(3, 0, 2)
    case = Outputs(3, 10).with_denoising(targets, 2)
    shared = assert_equal_losses(
        case, targets, make_criterion(share_matched_indices=True), share=True
    )
    own = make_criterion()(case.outputs, targets)
    differing = {name for name in own if (own[name] - shared[name]).abs() > 1e-3}
    # Other layers, and nothing else, depend on it.
    assert differing == {f"{name}_aux_{i}" for name in VFL for i in range(2)}


@pytest.mark.parametrize("share", [False, True])
def test_class_agnostic_encoder_predicts_objects(make_targets, share):
    targets = make_targets(3, 0, 2)
    case = Outputs(3, 10, encoder_classes=1).with_denoising(targets, 2)
    criterion = make_criterion(share_matched_indices=share)
    assert_equal_losses(case, targets, criterion, share=share)


def test_focal_variant(make_targets):
    targets = make_targets(3, 0, 2)
    case = Outputs(3, 10).with_denoising(targets, 2)
    names = ["loss_focal", "loss_bbox", "loss_giou"]
    criterion = make_criterion(losses=("focal", "boxes"), alpha=0.2)
    assert_equal_losses(case, targets, criterion, names=names)


def test_softmax_matcher(make_targets):
    targets = make_targets(3, 0, 2)
    case = Outputs(3, 10).with_denoising(targets, 2)
    assert_equal_losses(case, targets, make_criterion(focal_matching=False), focal_matching=False)


@pytest.mark.parametrize("gamma", [1.0, 3.0])
def test_other_gamma(make_targets, gamma):
    targets = make_targets(3, 2)
    case = Outputs(2, 10).with_denoising(targets, 2)
    assert_equal_losses(case, targets, make_criterion(alpha=0.4, gamma=gamma))


def test_more_boxes_than_queries(make_targets):
    targets = make_targets(600, 2)
    case = Outputs(2, 300, num_layers=2).with_denoising(targets, 1, num_layers=2)
    assert_equal_losses(case, targets, make_criterion())


def test_batch_without_boxes_has_background_terms_only(make_targets):
    targets = make_targets(0, 0)
    case = Outputs(2, 7).with_denoising(targets, 1)
    found = assert_equal_losses(case, targets, make_criterion())
    for name, value in found.items():
        assert (value > 0) == name.startswith("loss_vfl"), name
    # The divisor is 1, not 0.
    p = case.outputs["pred_logits"].sigmoid()
    torch.testing.assert_close(found["loss_vfl"], (0.75 * p**2 * -torch.log(1 - p)).sum())


def test_terms_are_divided_by_boxes_and_denoising_groups(make_targets):
    targets = make_targets(1)
    wanted = targets[0]["boxes"]
    case = Outputs(1, 2).with_denoising(targets, 4)
    for layer in (case.outputs, *case.outputs["dn_aux_outputs"]):
        layer["pred_boxes"] = (wanted + torch.tensor([0.01, 0, 0, 0])).expand(
            1, layer["pred_boxes"].shape[1], 4
        )
    # Each matched box is off by 0.01, at weight 5; four denoising groups count like one.
    found = make_criterion()(case.outputs, targets)
    assert found["loss_bbox"].item() == pytest.approx(0.05, rel=1e-3)
    assert found["loss_bbox_dn_0"].item() == pytest.approx(0.05, rel=1e-3)


def test_terms_without_weight_are_omitted(make_targets):
    targets = make_targets(2)
    case = Outputs(1, 9).with_denoising(targets, 2)
    found = make_criterion(weight_dict={"loss_vfl": 1.0, "loss_giou": 3.0})(case.outputs, targets)
    full = make_criterion()(case.outputs, targets)
    assert set(found) == {name for name in full if not name.startswith("loss_bbox")}
    assert found["loss_giou"].item() == pytest.approx(1.5 * full["loss_giou"].item())
    only = make_criterion(losses=("boxes",))(case.outputs, targets)
    assert {name for name in full if not name.startswith("loss_vfl")} == set(only)


def test_loss_is_independent_of_image_and_box_order(make_targets):
    targets = make_targets(3, 1)
    case = Outputs(2, 8)
    expected = make_criterion()(case.outputs, targets)
    order = torch.tensor([2, 0, 1])
    first = {
        **targets[0],
        "boxes": targets[0]["boxes"][order],
        "labels": targets[0]["labels"][order],
    }

    def swapped(layer):
        return {key: layer[key].flip(0) for key in ("pred_logits", "pred_boxes")}

    outputs = {
        **swapped(case.outputs),
        "aux_outputs": [swapped(layer) for layer in case.outputs["aux_outputs"]],
        "enc_aux_outputs": [swapped(layer) for layer in case.outputs["enc_aux_outputs"]],
    }
    assert_terms(make_criterion()(outputs, [targets[1], first]), expected)


def test_evaluation_outputs_have_the_main_terms(make_targets):
    targets = make_targets(2, 0)
    full = Outputs(2, 9).outputs
    outputs = {key: full[key] for key in ("pred_logits", "pred_boxes")}
    found = make_criterion()(outputs, targets)
    assert set(found) == set(VFL)
    assert_terms(found, {name: make_criterion()(full, targets)[name] for name in VFL})


def test_loss_uses_float32_under_autocast(make_targets):
    targets = make_targets(2, 1)
    case = Outputs(2, 9).with_denoising(targets, 2)

    def halved(value):
        if isinstance(value, dict):
            return {k: v if k.endswith("meta") else halved(v) for k, v in value.items()}
        return [halved(v) for v in value] if isinstance(value, list) else value.bfloat16()

    half = halved(case.outputs)
    with torch.autocast("cpu", torch.bfloat16):
        found = make_criterion()(half, targets)
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert_terms(found, plain_losses(half, targets, names=VFL, alpha=0.75, gamma=2.0))


@pytest.mark.parametrize("where", ["pred_logits", "pred_boxes"])
@pytest.mark.parametrize("part", ["last", "aux", "encoder"])
def test_divergence_error_names_step_and_images(make_targets, where, part):
    targets = make_targets(1, 0, 2)
    outputs = Outputs(3, 6).outputs
    layer = {
        "last": outputs,
        "aux": outputs["aux_outputs"][0],
        "encoder": outputs["enc_aux_outputs"][0],
    }[part]
    layer[where] = layer[where].detach().clone()
    layer[where][1, 2, 0] = torch.nan
    with pytest.raises(
        TrainingDiverged,
        match=r"^epoch 4, step 71: the network's outputs are not finite for images with ids "
        r"\[101\]; inspect these images and their boxes, lower the learning rate",
    ):
        make_criterion()(outputs, targets, epoch=3, step=5, global_step=70)
    with pytest.raises(TrainingDiverged, match=r"^epoch 4, step 6: "):
        make_criterion()(outputs, targets, epoch=3, step=5)
    with pytest.raises(TrainingDiverged, match=r"^the network's outputs are not finite"):
        make_criterion()(outputs, targets)


def test_targets_and_outputs_are_not_modified(make_targets):
    targets = make_targets(2, 1)
    before = [{k: v.clone() for k, v in t.items()} for t in targets]
    case = Outputs(2, 9).with_denoising(targets, 2)
    logits = case.outputs["pred_logits"].detach().clone()
    make_criterion()(case.outputs, targets)
    assert torch.equal(case.outputs["pred_logits"], logits)
    for one, other in zip(targets, before, strict=True):
        assert all(torch.equal(one[k], other[k]) for k in other)


@pytest.mark.parametrize("rank", [0, 1])
def test_number_of_boxes_is_averaged_over_ranks_in_training_only(monkeypatch, rank):
    """Four boxes on rank 0 and none on rank 1 are two on average."""
    torch.manual_seed(rank)
    count = [4, 0][rank]
    targets = [{"labels": torch.zeros(count, dtype=torch.int64), "boxes": torch.rand(count, 4) / 2}]
    outputs = {"pred_logits": torch.randn(1, 6, 3), "pred_boxes": torch.rand(1, 6, 4) / 2}
    criterion = make_criterion(num_classes=3, alpha=0.2)
    alone = criterion.eval()(outputs, targets)  # without any collective operation
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "sum_over_ranks", lambda own: own + 4 - count)
    trained = criterion.train()(outputs, targets)
    for name, value in alone.items():
        divisors = [4, 1][rank], 2
        assert float(trained[name] * divisors[1]) == pytest.approx(float(value * divisors[0]))
    assert trained["loss_vfl"] > 0
    monkeypatch.setattr(distributed, "sum_over_ranks", None)
    assert criterion.eval()(outputs, targets) == alone


def test_crowd_regions_are_not_learned_as_background(make_targets):
    """The region covers the second image: none of its predictions is background of class 2."""
    targets = make_targets(2, 0)
    outputs = Outputs(2, 6).with_denoising(targets, 1)
    crowd = {"crowd_boxes": torch.tensor([[0.5, 0.5, 4.0, 4.0]]), "crowd_labels": torch.tensor([2])}
    none = {"crowd_boxes": torch.empty(0, 4), "crowd_labels": torch.empty(0, dtype=torch.int64)}
    gradients = []
    for extra in ([{}, {}], [none, none], [none, crowd]):
        given = [{**target, **more} for target, more in zip(targets, extra, strict=True)]
        terms = make_criterion()(outputs.outputs, given)
        logits = [leaf for leaf in outputs.leaves if leaf.shape[-1] == 5]
        gradients.append(torch.autograd.grad(sum(terms.values()), logits, retain_graph=True))
    for plain, empty, ignoring in zip(*gradients, strict=True):
        assert torch.equal(plain, empty)
        assert torch.equal(plain[0], ignoring[0])
        assert ignoring[1, :, 2].abs().max() == 0
        others = [0, 1, 3, 4]
        assert torch.equal(plain[1][:, others], ignoring[1][:, others])
        assert plain[1, :, 2].abs().min() > 0
