"""The decoder against a reference implementation, and its gradients."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from rtdetrv2_pytorch.src.zoo.rtdetr.decoder import RTDETRTransformerv2, TransformerDecoderLayer

# Reference implementation


def plain_anchors(sizes, margin):
    """Rows of cxcywh, and whether all four are strictly inside the margin."""
    rows = [
        [(x + 0.5) / w, (y + 0.5) / h, 0.05 * 2**level, 0.05 * 2**level]
        for level, (h, w) in enumerate(sizes)
        for y in range(h)
        for x in range(w)
    ]
    valid = [all(margin < v < 1 - margin for v in row) for row in rows]
    return torch.tensor(rows), torch.tensor(valid)


def logit(p):
    p = p.clamp(0, 1)
    return torch.log(p.clamp(min=1e-5) / (1 - p).clamp(min=1e-5))


def plain_maps(decoder, features):
    maps = [proj(f) for proj, f in zip(decoder.input_proj, features, strict=False)]
    for i in range(len(features), len(decoder.input_proj)):
        maps.append(decoder.input_proj[i](features[-1] if i == len(features) else maps[-1]))
    return maps


def plain_cells(decoder, maps, margin):
    """Return content, class logits and box logits of each cell."""
    memory = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)
    anchors, valid = plain_anchors([m.shape[2:] for m in maps], margin)
    anchor_logits = torch.log(anchors / (1 - anchors))
    anchor_logits[~valid] = torch.inf
    content = decoder.enc_output(torch.where(valid[:, None], memory, torch.zeros(())))
    scores = decoder.enc_score_head(content)
    return memory, content, scores, decoder.enc_bbox_head(content) + anchor_logits


def plain_choice(scores, count, method):
    """Cells of one image, best first."""
    if method == "one2many":
        flat = scores.flatten().tolist()
        best = sorted(range(len(flat)), key=lambda i: -flat[i])[:count]
        return [i // scores.shape[1] for i in best]
    best = scores.max(dim=1).values.tolist()
    return sorted(range(len(best)), key=lambda i: -best[i])[:count]


def plain_layer(layer, x, position, reference, memory, sizes):
    attention = nn.MultiheadAttention(x.shape[-1], layer.self_attn.num_heads, batch_first=True)
    attention.load_state_dict(layer.self_attn.state_dict())
    query = x + position
    x = layer.norm1(x + attention(query, query, x, need_weights=False)[0])
    x = layer.norm2(x + layer.cross_attn(x + position, reference, memory, sizes))
    return layer.norm3(x + layer.linear2(layer.linear1(x).relu()))


def plain_decoder(decoder, features, *, margin=0.01, method="default"):
    """Return logits and boxes of the selected cells, then of each layer."""
    maps = plain_maps(decoder, features)
    sizes = [tuple(m.shape[2:]) for m in maps]
    memory, content, scores, boxes = plain_cells(decoder, maps, margin)
    chosen = [plain_choice(s, decoder.num_queries, method) for s in scores]
    x = torch.stack([content[b, index] for b, index in enumerate(chosen)])
    reference = torch.stack([boxes[b, index] for b, index in enumerate(chosen)]).sigmoid()
    outputs = [(torch.stack([scores[b, i] for b, i in enumerate(chosen)]), reference)]
    if decoder.learn_query_content:
        x = decoder.tgt_embed.weight[None, : x.shape[1]].repeat(len(memory), 1, 1)
    for i, layer in enumerate(decoder.decoder.layers):
        position = decoder.query_pos_head(reference)
        x = plain_layer(layer, x, position, reference, memory, sizes)
        reference = (decoder.dec_bbox_head[i](x) + logit(reference)).sigmoid()
        outputs.append((decoder.dec_score_head[i](x), reference))
    return outputs


def assert_layer(found, expected):
    for key, plain in zip(("pred_logits", "pred_boxes"), expected, strict=True):
        torch.testing.assert_close(found[key], plain, rtol=1e-3, atol=1e-4)


VARIANTS = {
    "default": {},
    "one2many": {"query_select_method": "one2many"},
    "agnostic": {"query_select_method": "agnostic"},
    "discrete": {"cross_attn_method": "discrete"},
    "learned content": {"learn_query_content": True},
    "more queries than cells": {"num_queries": 300},
    "all that and learned": {"num_queries": 300, "learn_query_content": True},
    "three levels of two maps": {"num_levels": 3, "num_points": [2, 1, 3]},
    "four levels of two maps": {"num_levels": 4, "num_points": 2},
}


@pytest.mark.parametrize("size", [(32, 48), (64, 32)])
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_evaluation_matches_reference(make_decoder, make_features, variant, size):
    decoder = make_decoder(**VARIANTS[variant]).eval()
    features = make_features(*size)
    plain = plain_decoder(decoder, features, method=decoder.query_select_method)
    found = decoder(features)
    assert set(found) == {"pred_logits", "pred_boxes"}
    assert_layer(found, plain[-1])


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_training_returns_all_layers_and_selected_cells(make_decoder, make_features, variant):
    decoder = make_decoder(**VARIANTS[variant]).train()
    features = make_features()
    chosen, *layers = plain_decoder(decoder, features, method=decoder.query_select_method)
    found = decoder(features)
    assert_layer(found, layers[-1])
    assert len(found["aux_outputs"]) == len(layers) - 1
    for aux, plain in zip(found["aux_outputs"], layers[:-1], strict=True):
        assert_layer(aux, plain)
    assert len(found["enc_aux_outputs"]) == 1
    assert_layer(found["enc_aux_outputs"][0], chosen)
    assert found["enc_meta"] == {"class_agnostic": variant == "agnostic"}
    assert not {"dn_aux_outputs", "dn_meta"} & set(found)  # without targets


@pytest.mark.parametrize(("eval_idx", "layer"), [(-1, 2), (0, 0), (1, 1), (-3, 0)])
@torch.no_grad()
def test_evaluation_stops_at_eval_idx(make_decoder, make_features, eval_idx, layer):
    decoder = make_decoder(eval_idx=eval_idx).eval()
    features = make_features()
    plain = plain_decoder(decoder, features)
    for later in range(layer + 1, 3):  # later layers are not run: they would change the output
        for parameter in decoder.decoder.layers[later].parameters():
            parameter.fill_(torch.nan)
    assert_layer(decoder(features), plain[1 + layer])


@torch.no_grad()
def test_one2many_selects_cell_once_per_class(make_decoder, make_features):
    decoder = make_decoder(query_select_method="one2many", num_queries=90).train()
    chosen = decoder(make_features(32, 48, batch=1))["enc_aux_outputs"][0]["pred_boxes"][0]
    different = torch.unique(chosen, dim=0)
    # 30 cells, 150 pairs of cell and class, of which 90 are chosen.
    assert chosen.shape == (90, 4)
    assert 18 <= len(different) < 31


def test_without_aux_loss_only_last_layer_is_returned(make_decoder, make_features, make_targets):
    with_aux = make_decoder().train()
    decoder = make_decoder(aux_loss=False).train()
    decoder.load_state_dict(with_aux.state_dict())
    features, targets = make_features(), make_targets(2, 1)
    found = decoder(features, targets)
    assert set(found) == {"pred_logits", "pred_boxes"}
    expected = with_aux(features, targets)
    for key in found:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-5)


# Anchors


@torch.no_grad()
def test_invalid_cells_are_masked_for_selection_only(make_decoder, make_features):
    # With this margin the 5 % boxes of the first level are invalid, those of the second are not.
    decoder = make_decoder(eps=0.06).train()
    features = make_features()
    before = decoder(features)
    assert_layer(before, plain_decoder(decoder, features, margin=0.06)[-1])
    decoder.eval()
    before_eval = decoder(features)
    features[0] = features[0] + torch.randn_like(features[0])
    # Query selection uses zeros for invalid cells ...
    chosen = plain_cells(decoder, plain_maps(decoder, features), 0.06)[2]
    first_level = chosen[:, : 4 * 6]
    assert torch.equal(first_level, first_level[:, :1].expand_as(first_level))
    # ... but queries attend to the original content of the cells.
    assert (decoder(features)["pred_logits"] - before_eval["pred_logits"]).abs().max() > 1e-4


def test_selected_invalid_cell_stays_finite(make_decoder, make_features, make_targets):
    decoder = make_decoder(eps=0.4).train()  # all boxes are smaller than that: none is valid
    found = decoder(make_features(), make_targets(2, 1))
    assert (found["enc_aux_outputs"][0]["pred_boxes"] == 1).all()  # the sigmoid of infinity
    layers = [found, *found["aux_outputs"], *found["enc_aux_outputs"], *found["dn_aux_outputs"]]
    loss = sum(
        layer[key].square().sum() for layer in layers for key in ("pred_logits", "pred_boxes")
    )
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in decoder.parameters() if p.grad is not None)


def test_anchors_of_evaluation_size_are_saved_and_used(make_decoder, make_features):
    decoder = make_decoder(eval_spatial_size=(32, 48)).eval()
    state = decoder.state_dict()
    rows, valid = plain_anchors([(4, 6), (2, 3)], 0.01)
    torch.testing.assert_close(state["anchors"].sigmoid()[0], rows)
    assert torch.equal(state["valid_mask"][0, :, 0], valid)
    here, elsewhere = make_features(32, 48), make_features(64, 32)
    with torch.no_grad():
        assert_layer(decoder(elsewhere), plain_decoder(decoder, elsewhere)[-1])
        assert_layer(decoder(here), plain_decoder(decoder, here)[-1])
        decoder.anchors += 1.0
        assert_layer(decoder(elsewhere), plain_decoder(decoder, elsewhere)[-1])
        moved = decoder(here)["pred_boxes"]
        assert (moved - plain_decoder(decoder, here)[-1][1]).abs().max() > 1e-2


def test_saved_anchors_use_margin(make_decoder):
    decoder = make_decoder(eval_spatial_size=(32, 48), eps=0.06)
    assert torch.equal(decoder.valid_mask[0, :, 0], plain_anchors([(4, 6), (2, 3)], 0.06)[1])
    assert 0 < decoder.valid_mask.sum() < 30


def test_no_anchors_are_saved_without_evaluation_size(make_decoder):
    assert not {"anchors", "valid_mask"} & set(make_decoder().state_dict())


def test_extra_levels_have_anchors(make_decoder):
    decoder = make_decoder(eval_spatial_size=(64, 64), num_levels=4, num_points=2)
    rows, _ = plain_anchors([(8, 8), (4, 4), (2, 2), (1, 1)], 0.01)
    torch.testing.assert_close(decoder.anchors.sigmoid()[0], rows)


@pytest.mark.parametrize("saved_at", [(64, 96), (96, 64), None])
@pytest.mark.parametrize("loaded_at", [(64, 96), (32, 32), None])
def test_weights_load_at_another_size(make_decoder, make_features, saved_at, loaded_at):
    source = make_decoder(eval_spatial_size=saved_at).eval()
    state = source.state_dict()
    keys = list(state)
    torch.manual_seed(5)
    decoder = make_decoder(eval_spatial_size=loaded_at).eval()
    decoder.load_state_dict(state, strict=True)
    assert list(state) == keys
    for key, value in decoder.state_dict().items():
        if key not in ("anchors", "valid_mask"):
            torch.testing.assert_close(value, state[key], rtol=0, atol=0, msg=key)
    if loaded_at is not None:
        sizes = [(loaded_at[0] // s, loaded_at[1] // s) for s in (8, 16)]
        torch.testing.assert_close(decoder.anchors.sigmoid()[0], plain_anchors(sizes, 0.01)[0])
    features = make_features(64, 96)
    with torch.no_grad():
        one, other = source(features), decoder(features)
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=0, atol=0)


# Denoising


@torch.no_grad()
def test_denoising_does_not_change_matching_queries(make_decoder, make_features, make_targets):
    decoder = make_decoder().train()
    features = make_features()
    without = decoder(features)
    found = decoder(features, make_targets(2, 1))
    layers = zip([found, *found["aux_outputs"]], [without, *without["aux_outputs"]], strict=True)
    for mine, plain in layers:
        assert_layer(mine, (plain["pred_logits"], plain["pred_boxes"]))


@torch.no_grad()
def test_denoising_outputs_of_all_layers(make_decoder, make_features, make_targets):
    decoder = make_decoder(label_noise_ratio=0.0, box_noise_scale=0.0).train()
    targets = make_targets(2, 1)
    found = decoder(make_features(), targets)
    meta = found["dn_meta"]
    assert (meta["dn_num_group"], meta["dn_num_split"]) == (2, [8, 6])
    assert len(found["dn_aux_outputs"]) == 3
    for layer in found["dn_aux_outputs"]:
        assert layer["pred_logits"].shape == (2, 8, 5)
        # Without noise the groups, and in them positives and negatives, have equal
        # inputs and equal attention, so their outputs are equal: box by box.
        for key in ("pred_logits", "pred_boxes"):
            parts = layer[key].unflatten(1, (4, 2))
            torch.testing.assert_close(parts[:, 0], parts[:, 1], rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(parts[:, 0], parts[:, 2], rtol=1e-3, atol=1e-4)
            assert (parts[:, :, 0] - parts[:, :, 1]).abs().max() > 1e-3


@torch.no_grad()
def test_denoising_queries_start_at_boxes(make_decoder, make_features, make_targets):
    decoder = make_decoder(label_noise_ratio=0.0, box_noise_scale=0.0).train()
    for head in decoder.dec_bbox_head:  # heads without effect
        nn.init.zeros_(head.layers[-1].weight)
        nn.init.zeros_(head.layers[-1].bias)
    targets = make_targets(2, 1)
    found = decoder(make_features(), targets)
    for layer in found["dn_aux_outputs"]:
        for image, index in enumerate(found["dn_meta"]["dn_positive_idx"]):
            torch.testing.assert_close(
                layer["pred_boxes"][image, index],
                targets[image]["boxes"].repeat(2, 1),
                rtol=1e-3,
                atol=1e-4,
            )


@torch.no_grad()
def test_denoising_can_be_disabled(make_decoder, make_features, make_targets):
    decoder = make_decoder(num_denoising=0).train()
    assert not [key for key in decoder.state_dict() if "denoising" in key]
    assert "dn_meta" not in decoder(make_features(), make_targets(2, 1))


def test_batch_without_boxes_uses_the_same_parameters(make_decoder, make_features, make_targets):
    used = []
    for counts in ((2, 1), (0, 0)):
        decoder = make_decoder().train()
        found = decoder(make_features(), make_targets(*counts))
        layers = [found, *found["aux_outputs"], *found["enc_aux_outputs"]]
        layers += found["dn_aux_outputs"]
        sum(v.sum() for layer in layers for v in layer.values() if torch.is_tensor(v)).backward()
        used.append({n for n, p in decoder.named_parameters() if p.grad is not None})
    assert used[0] == used[1] == {n for n, _ in decoder.named_parameters()}


# Gradients


def reached(decoder, loss):
    """Names of the parameters with a gradient that is not zero."""
    decoder.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    named = decoder.named_parameters()
    return {n for n, p in named if p.grad is not None and p.grad.abs().max() > 0}


def heads(names, prefix):
    return {int(n.split(".")[1]) for n in names if n.startswith(prefix)}


def test_look_forward_twice(make_decoder, make_features):
    decoder = make_decoder(num_layers=4).train()
    found = decoder(make_features())
    layers = [*found["aux_outputs"], found]
    for i, layer in enumerate(layers):
        # A layer's boxes have gradients for its own head and that of the previous layer only.
        names = reached(decoder, (layer["pred_boxes"] * torch.rand(4)).sum())
        assert heads(names, "dec_bbox_head.") == {j for j in (i - 1, i) if j >= 0}
        # Its logits have no gradient for box heads: the references are detached.
        names = reached(decoder, layer["pred_logits"].square().sum())
        assert heads(names, "dec_bbox_head.") == set()
        assert heads(names, "dec_score_head.") == {i}
        # Both have gradients for all layers up to this one, through the content.
        assert {int(n.split(".")[2]) for n in names if n.startswith("decoder.layers.")} == set(
            range(i + 1)
        )


def test_look_forward_twice_gradient_by_hand(make_decoder, make_features):
    decoder = make_decoder(num_layers=2).train()
    found = decoder(make_features())
    decoder.zero_grad()
    found["pred_boxes"].sum().backward()
    bias = decoder.dec_bbox_head[0].layers[-1].bias.grad
    # box_1 = sigmoid(delta_1 + logit(box_0)) and box_0 = sigmoid(delta_0 + ...), so that
    # d box_1 / d delta_0 = box_1 (1 - box_1): the two slopes of box_0 cancel.
    boxes = found["pred_boxes"].detach()
    torch.testing.assert_close(bias, (boxes * (1 - boxes)).sum((0, 1)), rtol=1e-3, atol=1e-5)


def test_decoder_loss_does_not_train_selection(make_decoder, make_features):
    decoder = make_decoder().train()
    features = [f.requires_grad_() for f in make_features()]
    found = decoder(features)
    loss = found["pred_logits"].square().sum() + (found["pred_boxes"] * torch.rand(4)).sum()
    names = reached(decoder, loss)
    assert not {n for n in names if n.startswith(("enc_output", "enc_score", "enc_bbox"))}
    # The features get gradients through cross-attention.
    assert all(f.grad.abs().max() > 0 for f in features)
    assert any(n.startswith("input_proj") for n in names)


def test_selection_loss_trains_selection(make_decoder, make_features):
    decoder = make_decoder().train()
    chosen = decoder(make_features())["enc_aux_outputs"][0]
    loss = chosen["pred_logits"].square().sum() + (chosen["pred_boxes"] * torch.rand(4)).sum()
    names = reached(decoder, loss)
    parts = {n.split(".")[0] for n in names}
    assert parts == {"enc_output", "enc_score_head", "enc_bbox_head", "input_proj"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_selection_is_trained_in_mixed_precision(make_decoder, make_features, dtype):
    """Autocast caches cast weights, also those cast without gradient to score all cells."""
    decoder = make_decoder().train()
    with torch.autocast("cpu", dtype):
        chosen = decoder(make_features())["enc_aux_outputs"][0]
    loss = chosen["pred_logits"].float().square().sum() + chosen["pred_boxes"].float().sum()
    names = reached(decoder, loss)
    own = {n for n, _ in decoder.named_parameters() if n.startswith(("enc_output", "enc_score"))}
    assert own <= names


@pytest.mark.parametrize("variant", ["default", "one2many"])
def test_selection_gradients_match_scoring_all_cells(make_decoder, make_features, variant):
    decoder = make_decoder(**VARIANTS[variant]).train()
    features = [f.requires_grad_() for f in make_features()]
    chosen = decoder(features)["enc_aux_outputs"][0]
    weights = [torch.rand_like(chosen[key]) for key in ("pred_logits", "pred_boxes")]
    inputs = [*features, *decoder.enc_output.parameters(), *decoder.enc_score_head.parameters()]

    def gradients(logits, boxes):
        return torch.autograd.grad((logits * weights[0]).sum() + (boxes * weights[1]).sum(), inputs)

    found = gradients(chosen["pred_logits"], chosen["pred_boxes"])
    plain = plain_decoder(decoder, features, method=decoder.query_select_method)[0]
    for ours, expected in zip(found, gradients(*plain), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)
        assert expected.abs().max() > 1e-3


def test_decoder_loss_trains_learned_content(make_decoder, make_features):
    decoder = make_decoder(learn_query_content=True).train()
    names = reached(decoder, decoder(make_features())["pred_logits"].square().sum())
    assert "tgt_embed.weight" in names


# Initialization


def test_initial_scores_are_one_percent_and_boxes_unchanged():
    decoder = RTDETRTransformerv2(num_classes=3, hidden_dim=16, nhead=2, num_layers=2)
    for head in (decoder.enc_score_head, *decoder.dec_score_head):
        torch.testing.assert_close(head.bias, torch.full((3,), -math.log(99)))
        assert 0 < head.weight.abs().max() <= 1 / 4  # as nn.Linear starts
    for head in (decoder.enc_bbox_head, *decoder.dec_bbox_head):
        assert head.layers[-1].weight.abs().max() == head.layers[-1].bias.abs().max() == 0
        assert head.layers[0].weight.abs().max() > 0


def test_xavier_initialized_weights():
    decoder = RTDETRTransformerv2(
        num_classes=3,
        hidden_dim=32,
        nhead=2,
        num_layers=1,
        dim_feedforward=48,
        feat_channels=(24, 40),
        feat_strides=(8, 16),
        num_levels=3,
        learn_query_content=True,
        num_queries=50,
    )
    layer = decoder.decoder.layers[0]
    expected = {
        decoder.enc_output.proj.weight: 32 + 32,
        decoder.query_pos_head.layers[0].weight: 4 + 64,
        decoder.query_pos_head.layers[1].weight: 64 + 32,
        decoder.input_proj[0].conv.weight: 24 + 32,
        decoder.input_proj[1].conv.weight: 40 + 32,
        decoder.input_proj[2].conv.weight: (40 + 32) * 9,
        layer.linear1.weight: 32 + 48,
        layer.linear2.weight: 48 + 32,
        decoder.tgt_embed.weight: 50 + 32,
    }
    for weight, fans in expected.items():
        bound = math.sqrt(6 / fans)
        assert 0.93 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_class_embedding_is_normal_with_zero_padding_row():
    embedding = RTDETRTransformerv2(num_classes=80, hidden_dim=64).denoising_class_embed
    assert embedding.weight.shape == (81, 64)
    assert embedding.weight[80].abs().max() == 0
    assert embedding.weight[:80].std().item() == pytest.approx(1, abs=0.05)
    assert embedding.weight[:80].mean().item() == pytest.approx(0, abs=0.05)


def test_layers_start_equal_and_heads_do_not():
    decoder = RTDETRTransformerv2(num_classes=3, hidden_dim=16, nhead=2, num_layers=2)
    first, second = decoder.decoder.layers
    for (name, one), (_, other) in zip(
        first.named_parameters(), second.named_parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=0, msg=name)
        assert one is not other
    assert (decoder.dec_score_head[0].weight - decoder.dec_score_head[1].weight).abs().max() > 0


# Other


def test_class_keys_are_tensors_with_one_row_per_class():
    options = {"num_classes": 7, "hidden_dim": 16, "nhead": 2, "num_layers": 2}
    for extra in ({}, {"query_select_method": "agnostic"}, {"num_denoising": 0}):
        decoder = RTDETRTransformerv2(**options, **extra)
        state = decoder.state_dict()
        expected = [k for k, v in state.items() if v.dim() and len(v) in (7, 8)]
        assert sorted(decoder.class_keys) == sorted(expected)


def test_fewer_levels_than_maps_are_rejected():
    with pytest.raises(ValueError, match="num_levels 2 is less than 3 maps"):
        RTDETRTransformerv2(num_levels=2)


@pytest.mark.parametrize("eval_idx", [3, -4])
def test_eval_idx_out_of_range_is_rejected(make_decoder, eval_idx):
    with pytest.raises(
        ValueError, match=rf"^eval_idx {eval_idx}: of 3 layers, give one from -3 to 2$"
    ):
        make_decoder(eval_idx=eval_idx)


def test_dropout_in_training_only():
    layer = TransformerDecoderLayer(8, 2, 16, 0.5, "relu", 1, 2, "default")
    inputs = (torch.randn(1, 3, 8), torch.randn(1, 3, 8), torch.rand(1, 3, 4))
    inputs += (torch.randn(1, 6, 8), [(2, 3)], None)
    assert (layer.train()(*inputs) - layer(*inputs)).abs().max() > 0
    torch.testing.assert_close(layer.eval()(*inputs), layer(*inputs), rtol=0, atol=0)


def test_activation_is_configurable(disturb):
    layer = disturb(TransformerDecoderLayer(8, 2, 16, 0.0, "gelu", 1, 2, "default"))
    x, position = torch.randn(1, 3, 8), torch.randn(1, 3, 8)
    boxes, memory, sizes = torch.rand(1, 3, 4), torch.randn(1, 6, 8), [(2, 3)]
    y = layer.norm1(x + layer.self_attn(x, position))
    y = layer.norm2(y + layer.cross_attn(y + position, boxes, memory, sizes))
    y = layer.norm3(y + layer.linear2(F.gelu(layer.linear1(y))))
    found = layer(x, position, boxes, memory, sizes, None)
    torch.testing.assert_close(found, y, rtol=1e-4, atol=1e-5)
