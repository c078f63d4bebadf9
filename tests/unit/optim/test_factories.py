"""Optimizer steps and learning rates of all epochs, computed by hand."""

import math

import pytest
import torch
from torch import nn

from rtdetrv2_pytorch.src.optim import factories


def parameter(value=1.0, grad=1.0):
    p = nn.Parameter(torch.tensor([value]))
    p.grad = torch.tensor([grad])
    return p


# Optimizers


def test_one_step_of_adamw_by_hand():
    p = parameter(grad=4.0)
    factories.adamw([p], lr=0.1, weight_decay=0.01).step()
    # The first step has the size of the learning rate; weight decay is separate.
    assert p.item() == pytest.approx(1 - 0.1 * 0.01 - 0.1)


def test_one_step_of_adam_by_hand():
    p = parameter(grad=4.0)
    factories.adam([p], lr=0.1).step()
    assert p.item() == pytest.approx(0.9)
    coupled, decoupled = parameter(grad=0.0), parameter(grad=0.0)
    factories.adam([coupled], lr=0.1, weight_decay=0.01).step()
    factories.adam([decoupled], lr=0.1, weight_decay=0.01, decoupled_weight_decay=True).step()
    assert coupled.item() == pytest.approx(0.9, abs=1e-5)  # decay is added to the gradient
    assert decoupled.item() == pytest.approx(0.999)


def test_two_steps_of_sgd_with_momentum_by_hand():
    p = parameter(grad=2.0)
    optimizer = factories.sgd([p], lr=0.1, momentum=0.5, weight_decay=0.0)
    optimizer.step()
    assert p.item() == pytest.approx(0.8)
    optimizer.step()
    assert p.item() == pytest.approx(0.8 - 0.1 * (0.5 * 2 + 2))


OPTIMIZERS = [factories.adamw, factories.adam, factories.sgd]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_fused_by_default(make):
    fused = make([parameter()], lr=0.1).param_groups[0]
    assert (fused["fused"], fused["foreach"]) == (True, None)
    for option in ({"fused": False}, {"foreach": True}, {"differentiable": True}):
        group = make([parameter()], lr=0.1, **option).param_groups[0]
        assert not group["fused"]
        assert all(group[key] == value for key, value in option.items())


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_fused_steps_match_loop(make):
    start = torch.randn(50)
    results = []
    for fused in (None, False):
        torch.manual_seed(1)
        p = nn.Parameter(start.clone())
        optimizer = make([p], lr=0.05, weight_decay=0.1, fused=fused, foreach=False)
        for _ in range(5):
            p.grad = torch.randn(50)
            optimizer.step()
        results.append(p.detach())
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_groups_keep_their_options(make):
    groups = [
        {"params": [parameter()], "lr": 1e-5},
        {"params": [parameter()], "weight_decay": 0.0},
    ]
    optimizer = make(groups, lr=1e-4, weight_decay=1e-2)
    found = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert found == [(1e-5, 1e-2), (1e-4, 0.0)]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_defaults_match_torch(make):
    ours = make([parameter()])
    theirs = getattr(torch.optim, type(ours).__name__)([parameter()])
    for key, value in theirs.defaults.items():
        if key != "fused":
            assert ours.defaults[key] == value, key


# Schedules


def rates(schedule, epochs):
    """Return the learning rate of the first group in each epoch."""
    found = []
    for _ in range(epochs):
        found.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.optimizer.step()
        schedule.step()
    return found


def optimizer_of(*learning_rates):
    groups = [{"params": [parameter()], "lr": lr} for lr in learning_rates]
    return factories.adamw(groups)


def test_multi_step_by_hand():
    schedule = factories.multi_step_lr(optimizer_of(1.0), milestones=[2, 3], gamma=0.5)
    assert rates(schedule, 5) == pytest.approx([1, 1, 0.5, 0.25, 0.25])


def test_cosine_by_hand():
    schedule = factories.cosine_annealing_lr(optimizer_of(1.0), epochs=4, eta_min=0.2)
    expected = [0.2 + 0.8 * (1 + math.cos(math.pi * e / 4)) / 2 for e in range(5)]
    assert expected == pytest.approx([1.0, 0.882843, 0.6, 0.317157, 0.2])
    assert rates(schedule, 5) == pytest.approx(expected)


def test_cosine_length_can_differ_from_run():
    schedule = factories.cosine_annealing_lr(optimizer_of(1.0), epochs=100, T_max=2)
    assert rates(schedule, 3) == pytest.approx([1.0, 0.5, 0.0])


def test_flat_cosine_by_hand():
    schedule = factories.flat_cosine_lr(
        optimizer_of(2.0), epochs=8, flat_fraction=0.5, min_fraction=0.1
    )
    # Flat to epoch 4, then thirds of the half cosine, ending in the last epoch at a tenth.
    expected = [1.0] * 5 + [0.1 + 0.9 * 0.75, 0.1 + 0.9 * 0.25, 0.1]
    assert rates(schedule, 8) == pytest.approx([2 * e for e in expected])


@pytest.mark.parametrize(
    ("epochs", "flat_fraction", "expected"),
    [
        (1, 0.5, [1.0]),
        (2, 0.5, [1.0, 1.0]),
        (3, 0.0, [1.0, 0.525, 0.05]),
        (3, 1.0, [1.0, 1.0, 1.0]),
    ],
)
def test_flat_cosine_limits(epochs, flat_fraction, expected):
    schedule = factories.flat_cosine_lr(
        optimizer_of(1.0), epochs=epochs, flat_fraction=flat_fraction
    )
    assert rates(schedule, epochs) == pytest.approx(expected)


def test_flat_cosine_stays_at_minimum_after_end():
    schedule = factories.flat_cosine_lr(optimizer_of(1.0), epochs=3)
    assert rates(schedule, 6)[-3:] == pytest.approx([0.05] * 3)


def one_cycle_by_hand(peak, epochs):
    """Up from 1/25 of the peak over three tenths of the run, down to 1/250000 of it."""
    start, end = peak / 25, peak / 25 / 1e4
    top = 0.3 * epochs - 1
    found = []
    for e in range(epochs):
        low, share = (start, e / top) if e <= top else (end, (e - top) / (epochs - 1 - top))
        share = share if e <= top else 1 - share
        found.append(low + (peak - low) * (1 - math.cos(math.pi * share)) / 2)
    return found


def test_one_cycle_covers_run():
    schedule = factories.one_cycle_lr(optimizer_of(1e-4), epochs=10, max_lr=0.01)
    assert rates(schedule, 10) == pytest.approx(one_cycle_by_hand(0.01, 10))


@pytest.mark.parametrize("max_lr", [2.0, 2])
def test_one_cycle_keeps_ratio_of_groups(max_lr):
    schedule = factories.one_cycle_lr(optimizer_of(1e-5, 1e-4), epochs=10, max_lr=max_lr)
    slow, fast = [], []
    for _ in range(10):
        first, second = schedule.optimizer.param_groups
        slow.append(first["lr"])
        fast.append(second["lr"])
        schedule.optimizer.step()
        schedule.step()
    assert fast == pytest.approx(one_cycle_by_hand(2.0, 10))
    assert slow == pytest.approx(one_cycle_by_hand(0.2, 10))


def test_one_cycle_with_peak_per_group():
    schedule = factories.one_cycle_lr(optimizer_of(1e-5, 1e-4), epochs=10, max_lr=[0.3, 0.2])
    assert rates(schedule, 10) == pytest.approx(one_cycle_by_hand(0.3, 10))


@pytest.mark.parametrize(
    "length", [{"total_steps": 10, "epochs": 99}, {"steps_per_epoch": 2, "epochs": 5}]
)
def test_one_cycle_with_explicit_length(length):
    schedule = factories.one_cycle_lr(optimizer_of(1e-4), max_lr=0.01, **length)
    assert rates(schedule, 10) == pytest.approx(one_cycle_by_hand(0.01, 10))


def test_lambda_lr():
    schedule = factories.lambda_lr(optimizer_of(2.0), lr_lambda=lambda epoch: 1 / (epoch + 1))
    assert rates(schedule, 3) == pytest.approx([2.0, 1.0, 2 / 3])


# The loss scale


def test_loss_scale_growth_and_backoff():
    scaler = factories.LossScaler(
        "cpu", init_scale=8.0, growth_factor=4.0, backoff_factor=0.25, growth_interval=1
    )
    p = parameter()
    optimizer = factories.sgd([p], lr=0.1)
    seen = []
    for grad in (8.0, math.inf):
        scaler.scale(torch.ones(1))
        p.grad = torch.tensor([grad])
        before = p.item()
        scaler.step(optimizer)
        scaler.update()
        seen.append((scaler.get_scale(), round(before - p.item(), 6)))
    # A step of 0.1 with the gradient 8 / 8, then 8 * 4; the step with inf is skipped.
    assert seen == [(32.0, 0.1), (8.0, 0.0)]


def test_loss_scale_defaults_match_torch_and_can_be_disabled():
    assert factories.LossScaler("cpu").get_scale() == 65536
    off = factories.LossScaler("cpu", enabled=False)
    assert off.scale(torch.tensor(3.0)).item() == 3.0
