"""Resume of optimizers and schedules with the settings of the resuming run."""

import copy

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, OneCycleLR

from rtdetrv2_pytorch.src.optim import factories
from rtdetrv2_pytorch.src.optim.resume import restore_optimizer, resume_schedule


def parameter():
    return torch.nn.Parameter(torch.tensor([1.0, 2.0]))


def trained(make, steps=3):
    """Return an optimizer after some steps with equal gradients, and its parameter."""
    p = parameter()
    optimizer = make([p])
    for _ in range(steps):
        p.grad = torch.tensor([0.5, -1.0])
        optimizer.step()
    return optimizer, p


def steps_of(scheduler, count):
    for _ in range(count):
        scheduler.optimizer.step()
        scheduler.step()
    return scheduler


# The optimizer


@pytest.mark.parametrize("saved_fused", [False, True])
@pytest.mark.parametrize("own_fused", [False, True])
def test_state_is_restored_for_every_implementation(saved_fused, own_fused):
    """A loss scaler passes `grad_scale` to fused optimizers only."""
    saved, p = trained(lambda ps: factories.adamw(ps, lr=0.1, fused=saved_fused))
    q = torch.nn.Parameter(p.detach().clone())
    own = factories.adamw([q], lr=0.1, fused=own_fused)
    restore_optimizer(own, copy.deepcopy(saved.state_dict()))
    assert own.param_groups[0]["fused"] is own_fused
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    q.grad = torch.tensor([2.0, -4.0])  # scaled
    scaler.scale(torch.ones(1))
    scaler.step(own)
    p.grad = torch.tensor([0.5, -1.0])
    saved.step()
    torch.testing.assert_close(q, p)


def test_options_of_this_run_win():
    saved, _ = trained(lambda ps: factories.adamw(ps, lr=0.1, betas=(0.5, 0.6), weight_decay=0.3))
    own = factories.adamw([parameter()], lr=0.01, betas=(0.8, 0.9), weight_decay=0.0, eps=1e-6)
    restore_optimizer(own, saved.state_dict())
    group = own.param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.01, (0.8, 0.9), 0.0)
    assert group["eps"] == 1e-6
    (state,) = own.state.values()
    # exp_avg after three steps with beta 0.5 and the gradient 0.5: 0.5 * (1 - 0.5**3)
    assert state["exp_avg"].tolist() == pytest.approx([0.4375, -0.875])
    assert int(state["step"]) == 3


def test_momentum_of_this_run_wins():
    saved, _ = trained(lambda ps: factories.sgd(ps, lr=0.1, momentum=0.9))
    own = factories.sgd([parameter()], lr=0.1, momentum=0.5)
    restore_optimizer(own, saved.state_dict())
    assert own.param_groups[0]["momentum"] == 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: factories.sgd([parameter()]), "its optimizer is Adam or AdamW, here it is SGD"),
        (
            lambda: factories.adamw([parameter(), parameter()]),
            r"sizes \[1\], those here \[2\]",
        ),
        (lambda: factories.adamw([parameter()], amsgrad=True), "trained without optimizer.amsgrad"),
    ],
)
def test_state_that_does_not_fit_is_refused(make, message):
    saved, _ = trained(factories.adamw)
    with pytest.raises(ValueError, match=message):
        restore_optimizer(make(), saved.state_dict())


# The schedule

SCHEDULES = {
    "cosine": lambda o, n: factories.cosine_annealing_lr(o, epochs=n),
    "flat": lambda o, n: factories.flat_cosine_lr(o, epochs=n, flat_fraction=0.25),
    "one_cycle": lambda o, n: factories.one_cycle_lr(o, epochs=n, max_lr=1.0),
    "steps": lambda o, n: factories.multi_step_lr(o, milestones=[n // 2]),
}


@pytest.mark.parametrize("before", SCHEDULES)
@pytest.mark.parametrize("after", SCHEDULES)
def test_schedule_continues_as_if_it_had_run_from_the_start(before, after):
    """Length, type and learning rate are those of the resuming run; see behavior of OneCycleLR."""
    old = steps_of(SCHEDULES[before](factories.adamw([parameter()], lr=1.0), 4), 3)
    new = SCHEDULES[after](factories.adamw([parameter()], lr=0.5), 8)
    restore_optimizer(new.optimizer, old.optimizer.state_dict())
    rates = resume_schedule(new, old.state_dict(), epoch=3)
    whole = steps_of(SCHEDULES[after](factories.adamw([parameter()], lr=0.5), 8), 3)
    assert rates == pytest.approx(whole.get_last_lr())
    new.optimizer.param_groups[0]["lr"] = rates[0]
    assert new.optimizer.param_groups[0]["betas"] == pytest.approx(
        whole.optimizer.param_groups[0]["betas"]
    )
    for _ in range(4):
        assert steps_of(new, 1).get_last_lr() == pytest.approx(steps_of(whole, 1).get_last_lr())


@pytest.mark.parametrize("name", SCHEDULES)
def test_unchanged_schedule_keeps_exact_learning_rates(name):
    saved = steps_of(SCHEDULES[name](factories.sgd([parameter()], lr=0.7), 9), 6)
    fresh = SCHEDULES[name](factories.sgd([parameter()], lr=0.7), 9)
    assert resume_schedule(fresh, saved.state_dict(), epoch=6) == saved.get_last_lr()
    assert fresh.last_epoch == 6


def test_position_without_schedule_state_is_the_epoch():
    fresh = factories.multi_step_lr(factories.sgd([parameter()], lr=1.0), milestones=[2])
    assert resume_schedule(fresh, None, epoch=5) == pytest.approx([0.1])


def test_one_cycle_ends_at_its_last_epoch():
    saved = steps_of(SCHEDULES["one_cycle"](factories.adamw([parameter()]), 8), 8)
    shorter = SCHEDULES["one_cycle"](factories.adamw([parameter()]), 4)
    (rate,) = resume_schedule(shorter, saved.state_dict(), epoch=8)
    assert 0 < rate < 1e-4


def test_state_of_torch_schedules_is_read():
    """The public trainer saves `state_dict()` of torch's classes."""
    for cls, options in (
        (MultiStepLR, {"milestones": [1]}),
        (CosineAnnealingLR, {"T_max": 4}),
        (OneCycleLR, {"max_lr": 1.0, "total_steps": 9}),
    ):
        optimizer = torch.optim.AdamW([parameter()], lr=1.0)
        state = steps_of(cls(optimizer, **options), 3).state_dict()
        own = factories.multi_step_lr(factories.adamw([parameter()], lr=2.0), milestones=[2])
        assert resume_schedule(own, state, epoch=0) == pytest.approx([0.2])
