"""Building blocks against formulas and torch's own modules."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from rtdetrv2_pytorch.src.nn.layers import (
    MLP,
    ConvNormLayer,
    FrozenBatchNorm2d,
    SelfAttention,
    freeze_batch_norms,
    fuse_conv_and_norm,
    inverse_sigmoid,
    make_activation,
)


def trained_norm(channels: int, eps: float = 1e-5) -> nn.BatchNorm2d:
    """A batch norm with values as after some training, in evaluation mode."""
    norm = nn.BatchNorm2d(channels, eps).eval()
    with torch.no_grad():
        norm.weight.uniform_(-2, 2)
        norm.bias.uniform_(-1, 1)
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.1, 2)
    return norm


# Activations


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        (None, lambda x: x),
        ("relu", lambda x: max(x, 0.0)),
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("gelu", lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2)))),  # exact, not tanh
        ("leaky_relu", lambda x: x if x > 0 else 0.01 * x),
    ],
)
def test_activations_by_formula(name, formula):
    values = [-3.0, -0.5, 0.0, 0.25, 2.0]
    found = make_activation(name)(torch.tensor(values))
    torch.testing.assert_close(found, torch.tensor([formula(v) for v in values]))


# Frozen batch norm


def test_frozen_norm_by_formula():
    norm = FrozenBatchNorm2d(2, eps=0.01)
    norm.load_state_dict(
        {
            "weight": torch.tensor([2.0, 3.0]),
            "bias": torch.tensor([0.5, -1.0]),
            "running_mean": torch.tensor([1.0, 4.0]),
            "running_var": torch.tensor([0.03, 0.24]),  # with eps: 0.2 and 0.5 squared
        }
    )
    x = torch.tensor([[[[1.0, 3.0]], [[4.0, 5.0]]]])
    expected = torch.tensor([[[[0.5, 20.5]], [[-1.0, 5.0]]]])
    for module in (norm.train(), norm.eval()):
        torch.testing.assert_close(module(x), expected)
    assert norm.running_mean.tolist() == [1, 4]  # not changed by the training pass


def test_frozen_norm_has_buffers_only():
    norm = FrozenBatchNorm2d(3)
    assert list(norm.state_dict()) == ["weight", "bias", "running_mean", "running_var"]
    assert list(norm.parameters()) == []


def test_frozen_norm_loads_state_of_batch_norm():
    holder = nn.Sequential(FrozenBatchNorm2d(4))
    state = nn.Sequential(trained_norm(4)).state_dict()
    assert "0.num_batches_tracked" in state
    holder.load_state_dict(state, strict=True)
    assert "0.num_batches_tracked" in state
    for key, value in holder.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=0)


def test_freeze_batch_norms_replaces_nested_norms():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), trained_norm(4, eps=0.3), nn.Sequential(nn.ReLU(), trained_norm(4))
    ).eval()
    x = torch.rand(2, 3, 5, 4)
    expected = model(x)
    frozen = freeze_batch_norms(model)
    assert frozen is model
    assert isinstance(model[1], FrozenBatchNorm2d)
    assert isinstance(model[2][1], FrozenBatchNorm2d)
    assert model[1].eps == 0.3
    torch.testing.assert_close(model.train()(x), expected)
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias"]


def test_freeze_batch_norms_accepts_norm():
    norm = trained_norm(3)
    x = torch.rand(2, 3, 2, 2)
    frozen = freeze_batch_norms(norm)
    assert isinstance(frozen, FrozenBatchNorm2d)
    torch.testing.assert_close(frozen(x), norm(x))


# Fusion


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": (2, 1), "padding": (0, 2)},
        {"groups": 2, "padding": 1},
        {"dilation": 2},
    ],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_fused_convolution_equals_convolution_and_norm(options, frozen):
    conv = nn.Conv2d(4, 8, 3, bias=False, **options)
    norm = trained_norm(8, eps=0.01)
    if frozen:
        norm = freeze_batch_norms(norm)
    x = torch.randn(2, 4, 9, 7)
    weight, expected = conv.weight.clone(), norm(conv(x))
    fused = fuse_conv_and_norm(conv, norm)
    torch.testing.assert_close(fused(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(conv.weight, weight, rtol=0, atol=0)  # the original is not modified
    assert not any(p.requires_grad for p in fused.parameters())


def test_fused_convolution_keeps_dtype():
    fused = fuse_conv_and_norm(nn.Conv2d(2, 2, 1, bias=False).double(), trained_norm(2).double())
    assert (fused.weight.dtype, fused.bias.dtype) == (torch.float64, torch.float64)


# Convolution, norm, activation


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (3, 1, 1), (3, 2, 1)])
def test_conv_norm_layer_by_functions(kernel, stride, padding):
    layer = ConvNormLayer(3, 5, kernel, stride, act="silu")
    layer.norm = trained_norm(5)
    x = torch.randn(2, 3, 7, 6)
    norm = layer.norm
    plain = F.conv2d(x, layer.conv.weight, stride=stride, padding=padding)
    plain = F.batch_norm(plain, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    plain = plain * torch.sigmoid(plain)
    torch.testing.assert_close(layer(x), plain, rtol=1e-4, atol=1e-5)
    assert layer.conv.bias is None


@pytest.mark.parametrize("frozen", [False, True])
def test_conv_norm_layer_conversion_keeps_output(frozen):
    layer = ConvNormLayer(3, 5, 3, 2, act="relu").eval()
    layer.norm = trained_norm(5)
    if frozen:
        freeze_batch_norms(layer)
    x = torch.randn(2, 3, 8, 8)
    expected = layer(x)
    for _ in range(2):
        layer.convert_to_deploy()
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)
    assert sorted(layer.state_dict()) == ["conv.bias", "conv.weight"]


# Perceptron


def test_mlp_by_hand():
    mlp = MLP(2, 2, 1, num_layers=2)
    with torch.no_grad():
        mlp.layers[0].weight.copy_(torch.tensor([[1.0, 2.0], [3.0, -4.0]]))
        mlp.layers[0].bias.copy_(torch.tensor([0.5, 0.0]))
        mlp.layers[1].weight.copy_(torch.tensor([[10.0, 100.0]]))
        mlp.layers[1].bias.copy_(torch.tensor([-50.0]))
    # Hidden (1 + 2 + 0.5, 3 - 4 -> 0); the last layer is linear, so it may be negative.
    assert mlp(torch.tensor([[1.0, 1.0]])).tolist() == [[-15.0]]


@pytest.mark.parametrize("num_layers", [1, 3, 4])
def test_mlp_has_relu_between_layers_only(num_layers):
    mlp = MLP(4, 6, 3, num_layers)
    widths = [4, *[6] * (num_layers - 1), 3]
    assert [(m.in_features, m.out_features) for m in mlp.layers] == [
        (a, b) for a, b in zip(widths, widths[1:], strict=False)
    ]
    x = y = torch.randn(2, 5, 4)
    for i, layer in enumerate(mlp.layers):
        y = y @ layer.weight.T + layer.bias
        if i < num_layers - 1:
            y = y.clamp(min=0)
    torch.testing.assert_close(mlp(x), y)


# Self-attention


def paired_attention(dim=16, heads=4):
    theirs = nn.MultiheadAttention(dim, heads, batch_first=True)
    nn.init.normal_(theirs.in_proj_bias)
    nn.init.normal_(theirs.out_proj.bias)
    ours = SelfAttention(dim, heads)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("positions", [1, 3])
def test_attention_matches_torch(masked, positions):
    ours, theirs = paired_attention()
    x, position = torch.randn(3, 7, 16), torch.randn(positions, 7, 16)
    visible = (torch.rand(7, 7) < 0.5) | torch.eye(7, dtype=torch.bool) if masked else None
    blocked = None if visible is None else ~visible
    expected, _ = theirs(x + position, x + position, x, attn_mask=blocked)
    torch.testing.assert_close(ours(x, position, visible), expected, rtol=1e-4, atol=1e-5)


def test_attention_gradients_match_torch():
    ours, theirs = paired_attention()
    x, position = torch.randn(2, 5, 16), torch.randn(1, 5, 16)
    ours(x, position).square().sum().backward()
    theirs(x + position, x + position, x)[0].square().sum().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-3, atol=1e-4)


def test_mask_limits_attention():
    attention = SelfAttention(8, 2)
    visible = torch.ones(4, 4, dtype=torch.bool)
    visible[:2, 2:] = False
    x, position = torch.randn(1, 4, 8), torch.zeros(1, 4, 8)
    before = attention(x, position, visible)
    x[:, 2:] += 1
    after = attention(x, position, visible)
    torch.testing.assert_close(after[:, :2], before[:, :2], rtol=0, atol=0)
    assert (after[:, 2:] - before[:, 2:]).abs().min() > 0


@pytest.mark.parametrize("masked", [False, True])
def test_bfloat16_attention_matches_float32_within_rounding(masked):
    attention, _ = paired_attention(dim=64, heads=2)
    visible = torch.rand(50, 50) < 0.5 if masked else None
    if masked:
        visible.fill_diagonal_(fill_value=True)
    position = torch.randn(1, 50, 64)

    def output_and_gradients(*, half):
        x = torch.randn(2, 50, 64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = attention(x, position, visible)
        assert out.dtype == (torch.bfloat16 if half else torch.float32)
        out.float().square().sum().backward()
        gradients = [x.grad, *(p.grad for p in attention.parameters())]
        attention.zero_grad(set_to_none=True)
        return [out.detach().float(), *gradients]

    exact, found = output_and_gradients(half=False), output_and_gradients(half=True)
    for ours, expected in zip(found, exact, strict=True):
        assert (ours - expected).norm() < 0.02 * expected.norm()


def test_mask_limits_bfloat16_attention():
    attention = SelfAttention(8, 2)
    visible = torch.ones(4, 4, dtype=torch.bool)
    visible[:2, 2:] = False
    x, position = torch.randn(1, 4, 8), torch.zeros(1, 4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        before = attention(x.clone().requires_grad_(), position, visible)
        x[:, 2:] += 1
        after = attention(x.requires_grad_(), position, visible)
    assert torch.equal(after[:, :2], before[:, :2])
    assert not torch.equal(after[:, 2:], before[:, 2:])


def test_bfloat16_attention_dropout_keeps_mean():
    attention, _ = paired_attention()
    plain = copy.deepcopy(attention)
    attention.dropout = 0.5
    x, position = torch.randn(2, 6, 16).requires_grad_(), torch.zeros(1, 6, 16)
    with torch.autocast("cpu", torch.bfloat16):
        draws = torch.stack([attention(x, position).detach().float() for _ in range(2000)])
        expected = plain(x, position).detach().float()
    assert (draws[0] - draws[1]).abs().max() > 0.01
    assert (draws.mean(dim=0) - expected).abs().max() < 0.1 * draws.std(dim=0).max() + 0.02


def test_norm_before_concatenation_gets_channels_last_gradient():
    first, second = ConvNormLayer(3, 8, 3), ConvNormLayer(3, 8, 1)
    plain = copy.deepcopy(first)
    seen = []
    first.norm.register_full_backward_pre_hook(lambda _m, grads: seen.append(grads[0]))
    x = torch.randn(2, 3, 5, 6).contiguous(memory_format=torch.channels_last)
    weights = torch.rand(2, 16, 5, 6).contiguous(memory_format=torch.channels_last)
    (torch.cat((first(x), second(x)), dim=1) * weights).sum().backward()
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(seen[0], weights[:, :8], rtol=0, atol=0)
    (plain.norm(plain.conv(x)) * weights[:, :8]).sum().backward()
    torch.testing.assert_close(first.conv.weight.grad, plain.conv.weight.grad)


def test_attention_dropout_in_training_only():
    attention = SelfAttention(8, 2, dropout=0.5)
    x, position = torch.randn(2, 6, 8), torch.zeros(1, 6, 8)
    plain = copy.deepcopy(attention)
    plain.dropout = 0.0
    expected = plain(x, position)
    torch.testing.assert_close(attention.eval()(x, position), expected)
    attention.train()
    draws = torch.stack([attention(x, position) for _ in range(2000)])
    assert (draws[0] - draws[1]).abs().max() > 0.01
    torch.testing.assert_close(draws.mean(0), expected, rtol=0, atol=0.1)


def test_attention_initialization_matches_torch():
    attention = SelfAttention(64, 4)
    bound = math.sqrt(6 / (64 + 3 * 64))  # Xavier over the stacked projection
    assert 0.98 * bound < attention.in_proj_weight.abs().max() <= bound
    assert attention.in_proj_bias.abs().max() == attention.out_proj.bias.abs().max() == 0
    assert attention.out_proj.weight.abs().max() <= 1 / 8  # as nn.Linear starts
    names = [name for name, _ in nn.MultiheadAttention(64, 4).named_parameters()]
    assert [name for name, _ in attention.named_parameters()] == names


def test_heads_that_do_not_divide_features_are_rejected():
    with pytest.raises(ValueError, match=r"^7 heads: give a number that divides 16 features$"):
        SelfAttention(16, 7)


# Logits


def test_inverse_sigmoid_by_hand():
    x = torch.tensor([0.0, 0.25, 0.5, 1.0, -3.0, 2.0])
    far = math.log(1e5)
    expected = torch.tensor([-far, -math.log(3), 0.0, far, -far, far])
    torch.testing.assert_close(inverse_sigmoid(x), expected, rtol=1e-5, atol=1e-6)


def test_inverse_sigmoid_inverts_sigmoid_with_finite_gradients():
    logits = torch.linspace(-9, 9, 37)
    torch.testing.assert_close(inverse_sigmoid(logits.sigmoid()), logits, rtol=1e-3, atol=1e-3)
    x = torch.tensor([0.0, 1.0, 0.5], requires_grad=True)
    inverse_sigmoid(x).sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad[2] == pytest.approx(4.0)
