"""EMA by its formula."""

import math

import pytest
import torch
from torch import nn

from rtdetrv2_pytorch.src.optim.ema import ModelEMA, unwrap
from rtdetrv2_pytorch.src.zoo.rtdetr.decoder import RTDETRTransformerv2


class Toy(nn.Module):
    """A parameter, a norm with its buffers, and integers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0]))
        self.norm = nn.BatchNorm2d(2)
        self.register_buffer("count", torch.tensor([3, 4]))
        self.register_buffer("mask", torch.tensor([True, False]))


def moved(model, value):
    """Set all floating-point entries of the model to `value` and change integer entries."""
    with torch.no_grad():
        for entry in model.state_dict().values():
            entry.fill_(value) if entry.is_floating_point() else entry.logical_not_()


@pytest.mark.parametrize(("decay", "warmups"), [(0.9, 4), (0.9999, 2000), (0.5, 1)])
def test_value_after_several_updates_by_formula(decay, warmups):
    model = Toy()
    ema = ModelEMA(model, decay=decay, warmups=warmups)
    expected = [1.0, -2.0]
    for n, value in enumerate((5.0, -1.0, 2.5), start=1):
        moved(model, value)
        ema.update(model)
        d = decay * (1 - math.exp(-n / warmups))
        assert ema.decay_at(n) == pytest.approx(d)
        expected = [d * e + (1 - d) * value for e in expected]
        torch.testing.assert_close(ema.module.weight, torch.tensor(expected))
    assert ema.updates == 3


def test_defaults_match_published():
    ema = ModelEMA(Toy())
    assert ema.decay_at(2000) == pytest.approx(0.9999 * (1 - 1 / math.e))
    assert ema.decay_at(10**6) == pytest.approx(0.9999)


def test_decay_without_warmup_is_constant():
    model = Toy()
    ema = ModelEMA(model, decay=0.9, warmups=0)
    moved(model, 11.0)
    ema.update(model)
    torch.testing.assert_close(ema.module.weight, torch.tensor([2.0, -0.7]))


def test_norm_statistics_are_averaged_and_integers_are_not():
    model = Toy()
    ema = ModelEMA(model, decay=0.75, warmups=0)
    moved(model, 4.0)
    ema.update(model)
    average = ema.module.state_dict()
    assert average["norm.running_mean"].tolist() == [1.0, 1.0]  # 0 and 4
    assert average["norm.running_var"].tolist() == [1.75, 1.75]  # 1 and 4
    assert average["norm.num_batches_tracked"] == 0
    assert average["count"].tolist() == [3, 4]
    assert average["mask"].tolist() == [True, False]


def test_infinite_entries_stay_infinite():
    model = Toy()
    model.register_buffer("limits", torch.tensor([1.0, torch.inf, -torch.inf]))
    ema = ModelEMA(model)
    for _ in range(3):
        ema.update(model)
    assert ema.module.limits.tolist() == [1.0, math.inf, -math.inf]


def test_ema_keeps_anchors_of_decoder():
    # At the published size the anchors at the border are invalid and hold infinity.
    model = RTDETRTransformerv2(
        num_classes=2, hidden_dim=8, nhead=2, num_layers=1, eval_spatial_size=(640, 640)
    )
    assert model.anchors.isinf().any()
    ema = ModelEMA(model)
    ema.update(model)
    torch.testing.assert_close(ema.module.anchors, model.anchors, rtol=0, atol=0)


def test_ema_is_frozen_copy_in_evaluation_mode():
    model = Toy().train()
    ema = ModelEMA(model)
    assert not any(m.training for m in ema.module.modules())
    assert not any(p.requires_grad for p in ema.module.parameters())
    assert model.training
    assert model.weight.requires_grad
    moved(model, 7.0)
    assert ema.module.weight.tolist() == [1.0, -2.0]
    ema.update(model)
    assert model.weight.tolist() == [7.0, 7.0]


class Compiled(nn.Module):
    """A wrapper that keeps the model where torch.compile does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, Compiled, lambda m: nn.DataParallel(Compiled(m)), lambda m: m]
)
def test_wrappers_are_unwrapped(wrap):
    model = Toy()
    wrapped = wrap(model)
    assert unwrap(wrapped) is model
    ema = ModelEMA(wrapped, decay=0.5, warmups=0)
    moved(model, 3.0)
    ema.update(wrapped)
    assert ema.module.weight.tolist() == [2.0, 0.5]
    saved = ema.state_dict()
    assert list(saved["module"]) == list(model.state_dict())  # names without a prefix
    assert saved["updates"] == 1


@pytest.mark.parametrize(("decay", "expected"), [(0.0, 5.0), (1.0, 1.0)])
def test_decay_of_zero_or_one_keeps_infinite_anchors(decay, expected):
    model = Toy()
    model.register_buffer("anchors", torch.tensor([0.5, math.inf]))
    ema = ModelEMA(model, decay=decay, warmups=0)
    with torch.no_grad():
        model.weight.fill_(5.0)
    ema.update(model)
    assert ema.module.anchors.tolist() == [0.5, math.inf]
    assert ema.module.weight[0].item() == expected


def test_constants_are_copied_exactly():
    """The average of equal values drifts by rounding: 0.1 * d + 0.1 * (1 - d) is not always 0.1."""
    model = Toy()
    model.register_buffer("anchors", torch.linspace(-3, 3, 101))
    model.frozen = nn.Parameter(torch.linspace(0, 1, 101), requires_grad=False)
    ema = ModelEMA(model, decay=0.9999, warmups=7)
    for _ in range(200):
        ema.update(model)
    assert torch.equal(ema.module.anchors, model.anchors)
    assert torch.equal(ema.module.frozen, model.frozen)
