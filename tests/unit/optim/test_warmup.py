"""Learning rates of all steps by hand."""

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, MultiStepLR

from rtdetrv2_pytorch.src.optim.warmup import LinearWarmup

STEPS_PER_EPOCH = 3


class Run:
    """An optimizer with two groups, schedule and warm-up, recording all learning rates."""

    def __init__(self, duration, make_schedule=None, rates=(1.0, 0.5)):
        groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": rate} for rate in rates]
        self.optimizer = torch.optim.SGD(groups)
        make_schedule = make_schedule or (lambda o: MultiStepLR(o, [1000]))
        self.schedule = make_schedule(self.optimizer)
        self.warmup = LinearWarmup(self.schedule, warmup_duration=duration)
        self.rates, self.steps = [], 0

    def train(self, steps):
        for _ in range(steps):
            self.rates.append([group["lr"] for group in self.optimizer.param_groups])
            self.optimizer.step()
            self.warmup.step()
            self.steps += 1
            if self.steps % STEPS_PER_EPOCH == 0:
                self.warmup.step_epoch()
        return self

    @property
    def first(self):
        return [rates[0] for rates in self.rates]


def test_learning_rate_increases_linearly_in_all_groups():
    run = Run(4).train(6)
    expected = [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert run.first == pytest.approx(expected)
    assert [rates[1] for rates in run.rates] == pytest.approx([0.5 * e for e in expected])


def test_milestones_during_and_after_warmup():
    run = Run(5, lambda o: MultiStepLR(o, [1, 3], gamma=0.1)).train(12)
    expected = [
        *(0.2, 0.4, 0.6),  # epoch 0
        *(0.08, 0.1, 0.1),  # epoch 1: a tenth, still rising for two steps
        *(0.1, 0.1, 0.1),  # epoch 2
        *(0.01, 0.01, 0.01),  # epoch 3: a hundredth
    ]
    assert run.first == pytest.approx(expected)


@pytest.mark.parametrize(
    "make_schedule",
    [
        lambda o: MultiStepLR(o, [1, 2], gamma=0.5),
        lambda o: CosineAnnealingLR(o, 6, eta_min=0.05),
        lambda o: LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
    ],
)
def test_schedule_advances_during_warmup(make_schedule):
    alone = Run(0, make_schedule).train(15)
    run = Run(7, make_schedule).train(15)
    for n, (plain, warmed) in enumerate(zip(alone.rates, run.rates, strict=True)):
        assert warmed == pytest.approx([rate * min(1, (n + 1) / 7) for rate in plain])


def test_no_warmup_with_zero_duration():
    run = Run(0)
    assert run.warmup.finished()
    assert run.train(2).first == [1.0, 1.0]


def test_warmup_ends_at_full_learning_rate():
    run = Run(2)
    seen = []
    for _ in range(3):
        seen.append((run.warmup.finished(), run.warmup.factor()))
        run.train(1)
    assert seen == [(False, 0.5), (False, 1.0), (True, 1.0)]


def test_state_has_published_keys():
    run = Run(4, lambda o: MultiStepLR(o, [1], gamma=0.1))
    assert run.warmup.state_dict() == {
        "last_step": -1,
        "warmup_duration": 4,
        "warmup_end_values": [1.0, 0.5],
    }
    run.train(3)
    state = run.warmup.state_dict()
    assert state["last_step"] == 2
    assert state["warmup_end_values"] == pytest.approx([0.1, 0.05])


@pytest.mark.parametrize("stop", [1, 2, 3, 5, 6, 8, 9, 11])
def test_resume_equals_uninterrupted_run(stop):
    def make_schedule(optimizer):
        return MultiStepLR(optimizer, [1, 3], gamma=0.1)

    whole = Run(5, make_schedule).train(15)
    before = Run(5, make_schedule).train(stop)
    after = Run(5, make_schedule, rates=(9.0, 9.0))  # restored from the state
    after.steps = stop
    for part in ("optimizer", "schedule", "warmup"):
        getattr(after, part).load_state_dict(getattr(before, part).state_dict())
    after.warmup.follow(before.schedule.get_last_lr())
    after.train(15 - stop)
    for resumed, expected in zip(after.rates, whole.rates[stop:], strict=True):
        assert resumed == pytest.approx(expected)


def test_resume_during_warmup_keeps_position_and_uses_own_duration():
    run = Run(4)
    run.warmup.load_state_dict(
        {"last_step": 1, "warmup_duration": 100, "warmup_end_values": [9.0, 9.0]}
    )
    run.warmup.follow([2.0, 1.0])
    assert run.train(3).rates == [[1.5, 0.75], [2.0, 1.0], [2.0, 1.0]]


def test_follow_scales_new_learning_rates():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    warmup = LinearWarmup(torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0), warmup_duration=4)
    warmup.follow([0.8])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2)
