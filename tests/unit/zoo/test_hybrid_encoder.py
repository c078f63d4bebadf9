"""The encoder against formulas, torch's layers and a reference implementation."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from rtdetrv2_pytorch.src.nn.layers import freeze_batch_norms
from rtdetrv2_pytorch.src.zoo.rtdetr.hybrid_encoder import (
    CSPRepLayer,
    HybridEncoder,
    RepVggBlock,
    TransformerEncoder,
    TransformerEncoderLayer,
    sincos_position_embedding,
)

# Positions


def test_position_embedding_of_2x3_map_by_hand():
    # Four frequencies would need 16 features; with 8 there are two: 1 and 100 ** -0.5 = 0.1.
    expected = []
    for y in (0, 1):
        for x in (0, 1, 2):
            row = [math.sin(y), math.sin(0.1 * y), math.cos(y), math.cos(0.1 * y)]
            column = [math.sin(x), math.sin(0.1 * x), math.cos(x), math.cos(0.1 * x)]
            expected.append(row + column)
    found = sincos_position_embedding(2, 3, dim=8, temperature=100)
    torch.testing.assert_close(found, torch.tensor([expected]))


def test_position_embedding_of_square_map_matches_published():
    # Token t has a = t // h and b = t mod h.
    side, dim, temperature = 5, 16, 10000.0
    found = sincos_position_embedding(side, side, dim, temperature)[0]
    omega = [temperature ** (-i / 4) for i in range(4)]
    for t in (0, 1, 7, 24):
        a, b = t // side, t % side
        expected = [f(p * o) for p in (a, b) for f in (math.sin, math.cos) for o in omega]
        torch.testing.assert_close(found[t], torch.tensor(expected))


# RepVGG


def plain_unit(layer, x, stride=1):
    """Convolution and norm as functions, in the mode of the layer."""
    norm = layer.norm
    x = F.conv2d(x, layer.conv.weight, stride=stride, padding=layer.conv.weight.shape[-1] // 2)
    return F.batch_norm(
        x,
        norm.running_mean.clone(),
        norm.running_var.clone(),
        norm.weight,
        norm.bias,
        training=norm.training,
        eps=1e-5,
    )


def plain_rep(block, x):
    return F.silu(plain_unit(block.conv1, x) + plain_unit(block.conv2, x))


@pytest.mark.parametrize("frozen", [False, True])
def test_fused_block_matches_branches(disturb, frozen):
    block = disturb(RepVggBlock(4, 6, "silu")).eval()
    x = torch.randn(2, 4, 5, 7)
    expected = plain_rep(block, x)
    torch.testing.assert_close(block(x), expected)
    if frozen:
        freeze_batch_norms(block)
    for _ in range(2):  # the second call has no effect
        block.convert_to_deploy()
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)
    assert sorted(block.state_dict()) == ["conv.bias", "conv.weight"]
    assert tuple(block.conv.weight.shape) == (6, 4, 3, 3)


# Fusion of two maps


def plain_csp(layer, x):
    y = F.silu(plain_unit(layer.conv1, x))
    for block in layer.bottlenecks:
        y = plain_rep(block, y)
    y = y + F.silu(plain_unit(layer.conv2, x))
    return y if isinstance(layer.conv3, nn.Identity) else F.silu(plain_unit(layer.conv3, y))


@pytest.mark.parametrize(("expansion", "hidden"), [(0.5, 3), (1.0, 6), (0.75, 4)])
@pytest.mark.parametrize("training", [False, True])
def test_csp_layer_matches_reference(disturb, expansion, hidden, training):
    layer = disturb(CSPRepLayer(12, 6, 2, expansion, "silu")).train(training)
    assert layer.conv1.conv.out_channels == hidden
    assert isinstance(layer.conv3, nn.Identity) == (hidden == 6)
    x = torch.randn(2, 12, 4, 5)
    expected = plain_csp(layer, x)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


# Transformer


def test_transformer_layer_matches_torch_without_positions(disturb):
    theirs = disturb(
        nn.TransformerEncoderLayer(8, 2, 16, dropout=0, activation="gelu", batch_first=True)
    )
    ours = TransformerEncoderLayer(8, 2, 16, 0.0, "gelu")
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 6, 8)
    torch.testing.assert_close(ours(x, torch.zeros(1, 6, 8)), theirs(x), rtol=1e-4, atol=1e-5)


def test_positions_are_added_to_queries_and_keys_only(disturb):
    layer = TransformerEncoderLayer(8, 2, 16, 0.0, "gelu")
    encoder = disturb(TransformerEncoder(layer, 2))
    x, position = torch.randn(2, 6, 8), torch.randn(1, 6, 8)
    expected = x
    for part in encoder.layers:
        attention = nn.MultiheadAttention(8, 2, batch_first=True)
        attention.load_state_dict(part.self_attn.state_dict())
        query = expected + position
        expected = part.norm1(expected + attention(query, query, expected)[0])
        hidden = F.gelu(part.linear1(expected))
        expected = part.norm2(expected + part.linear2(hidden))
    torch.testing.assert_close(encoder(x, position), expected, rtol=1e-4, atol=1e-5)


def test_layers_start_equal_and_are_not_shared():
    encoder = TransformerEncoder(TransformerEncoderLayer(8, 2, 16, 0.0, "gelu"), 2)
    first, second = encoder.layers
    for (name, one), (_, other) in zip(
        first.named_parameters(), second.named_parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=0, msg=name)
        assert one is not other


def test_transformer_dropout_in_training_only():
    layer = TransformerEncoderLayer(8, 2, 16, 0.5, "gelu")
    x, position = torch.randn(1, 5, 8), torch.zeros(1, 5, 8)
    assert (layer.train()(x, position) - layer(x, position)).abs().max() > 0
    torch.testing.assert_close(layer.eval()(x, position), layer(x, position), rtol=0, atol=0)


# The whole encoder

OPTIONS = {
    "in_channels": (3, 4, 5),
    "hidden_dim": 8,
    "nhead": 2,
    "dim_feedforward": 16,
    "expansion": 0.5,
    "depth_mult": 0.34,
}


def make_encoder(disturb, **options):
    return disturb(HybridEncoder(**(OPTIONS | options)))


def make_features(height, width, batch=2):
    return [
        torch.randn(batch, c, height // s, width // s)
        for c, s in zip(OPTIONS["in_channels"], (8, 16, 32), strict=True)
    ]


def plain_encoder(encoder, features, attended=(2,)):
    """Three levels, line by line; positions from the published formula at the actual size."""
    maps = [plain_unit(p, f) for p, f in zip(encoder.input_proj, features, strict=True)]
    for i, level in enumerate(attended):
        x = maps[level]
        height, width = x.shape[2:]
        position = sincos_position_embedding(height, width, x.shape[1], 10000.0)
        tokens = torch.stack([x[:, :, r, c] for r in range(height) for c in range(width)], dim=1)
        tokens = encoder.encoder[i](tokens, position)
        maps[level] = tokens.transpose(1, 2).reshape(x.shape)
    low, middle, high = maps

    high = F.silu(plain_unit(encoder.lateral_convs[0], high))
    up = high.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    middle = plain_csp(encoder.fpn_blocks[0], torch.cat((up, middle), dim=1))
    middle = F.silu(plain_unit(encoder.lateral_convs[1], middle))
    up = middle.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    low = plain_csp(encoder.fpn_blocks[1], torch.cat((up, low), dim=1))

    down = F.silu(plain_unit(encoder.downsample_convs[0], low, stride=2))
    middle = plain_csp(encoder.pan_blocks[0], torch.cat((down, middle), dim=1))
    down = F.silu(plain_unit(encoder.downsample_convs[1], middle, stride=2))
    high = plain_csp(encoder.pan_blocks[1], torch.cat((down, high), dim=1))
    return [low, middle, high]


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (64, 128)])
@pytest.mark.parametrize("training", [False, True])
def test_encoder_matches_reference_at_any_size(disturb, size, training):
    encoder = make_encoder(disturb, num_encoder_layers=2, eval_spatial_size=(64, 64))
    encoder.train(training)
    features = make_features(*size)
    expected = plain_encoder(encoder, features)
    found = encoder(features)
    assert len(found) == 3
    for mine, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-3, atol=1e-4)


def test_each_level_has_its_own_transformer(disturb):
    encoder = make_encoder(disturb, use_encoder_idx=(1, 2)).eval()
    features = make_features(64, 96)
    expected = plain_encoder(encoder, features, attended=(1, 2))
    for mine, plain in zip(encoder(features), expected, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-3, atol=1e-4)


def test_no_attention_without_encoder_layers(disturb):
    encoder = make_encoder(disturb, num_encoder_layers=0).eval()
    features = make_features(64, 64)
    expected = plain_encoder(encoder, features, attended=())
    for mine, plain in zip(encoder(features), expected, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-3, atol=1e-4)
    assert not [key for key in encoder.state_dict() if key.startswith("encoder.")]


def test_precomputed_positions_are_used_at_evaluation_size_only(disturb):
    encoder = make_encoder(disturb, eval_spatial_size=(64, 96)).eval()
    here, elsewhere = make_features(64, 96), make_features(96, 64)
    before = encoder(here)[2], encoder(elsewhere)[2]
    encoder.pos_embed2 = encoder.pos_embed2.flip(1)
    assert (encoder(here)[2] - before[0]).abs().max() > 1e-4
    torch.testing.assert_close(encoder(elsewhere)[2], before[1], rtol=0, atol=0)


def test_precomputed_positions_are_not_saved():
    torch.manual_seed(1)
    ready = HybridEncoder(**OPTIONS, eval_spatial_size=(96, 64)).eval()
    torch.testing.assert_close(ready.pos_embed2, sincos_position_embedding(3, 2, 8, 10000.0))
    computing = HybridEncoder(**OPTIONS).eval()
    computing.load_state_dict(ready.state_dict(), strict=True)
    features = make_features(96, 64)
    for one, other in zip(ready(features), computing(features), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert not [key for key in ready.state_dict() if "pos_embed" in key]


def test_temperature_changes_output(disturb):
    encoder = make_encoder(disturb).eval()
    features = make_features(64, 64)
    before = encoder(features)[2]
    encoder.pe_temperature = 20.0
    assert (encoder(features)[2] - before).abs().max() > 1e-5


@pytest.mark.parametrize(("depth_mult", "blocks"), [(1.0, 3), (0.34, 1), (2.0, 6), (0.5, 2)])
def test_depth_mult_scales_number_of_blocks(depth_mult, blocks):
    encoder = HybridEncoder(**(OPTIONS | {"depth_mult": depth_mult}))
    layers = [*encoder.fpn_blocks, *encoder.pan_blocks]
    assert [len(layer.bottlenecks) for layer in layers] == [blocks] * 4


def test_wrong_number_of_maps_is_rejected():
    with pytest.raises(ValueError, match="shorter"):
        HybridEncoder(**OPTIONS)(make_features(64, 64)[:2])
