"""The time budget with a fake clock."""

import pytest

from rtdetrv2_pytorch.src.timing.budget import TimeBudget
from rtdetrv2_pytorch.src.timing.estimates import EpochTime

STEPS = 20  # of an epoch


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def make_budget(seconds, clock=None, *, train_s=10.0, eval_s=5.0, **options):
    clock = clock or Clock()
    budget = TimeBudget(seconds=seconds, start_s=clock.now, clock=clock, **options)
    budget.expect(EpochTime(train_s, eval_s, budget.eval_freq))
    return budget, clock


def train(budget, clock, *, epochs, train_s, eval_s=5.0, tail=1, first=0, last=None):
    """Simulate a training; `train_s` gives the seconds of an epoch.

    Returns:
        (epoch, finished steps) of the epochs that ran.
    """
    budget.tail, ran, epoch = tail, [], first
    while epoch < (epochs if last is None else last):
        epoch = budget.next_epoch(epoch, epochs)
        begin, steps = clock.now, 0
        is_last = epoch + 1 == epochs
        is_evaluated = is_last or (epoch + 1) % budget.eval_freq == 0
        while steps < STEPS:
            clock.now += train_s(epoch) / STEPS
            steps += 1
            if budget.is_late(is_last=is_last, is_evaluated=is_evaluated):
                break
        measured = clock.now - begin if steps == STEPS else None
        clock.now += eval_s * is_evaluated
        budget.add(train_s=measured, eval_s=eval_s if is_evaluated else None)
        ran.append((epoch, steps))
        epoch += 1
    clock.now += eval_s  # of best.pth
    return ran


def test_time_left_by_hand():
    budget, clock = make_budget(1000, reserve_s=100)
    assert budget.left_s() == 870  # 3 % margin
    clock.now += 70
    assert (budget.elapsed_s(), budget.left_s()) == (70, 800)
    assert make_budget(1000, reserve_s=990)[0].left_s() == pytest.approx(20)  # 95 % at most


def test_next_epoch_by_hand():
    """An epoch takes 10 s and 5 s of evaluation; 5 s are kept for the evaluation of best.pth."""
    budget, clock = make_budget(1000)
    budget.tail = 3
    assert budget.next_epoch(0, 64) == 0
    clock.now += 900  # 70 s left, 65 without that of best.pth: four epochs
    assert budget.next_epoch(30, 64) == 30  # one and the tail
    clock.now += 6  # three epochs
    assert budget.next_epoch(30, 64) == 61
    assert budget.next_epoch(61, 64) == 61
    clock.now += 15  # two epochs
    assert budget.next_epoch(61, 64) == 62
    clock.now += 100
    assert budget.next_epoch(61, 64) == 63  # none fits: the last one, which ends early


def test_end_of_an_epoch_by_hand():
    budget, clock = make_budget(1000)
    clock.now += 945  # 25 s left: an epoch and three evaluations
    assert not budget.is_late(is_last=False, is_evaluated=True)
    clock.now += 1
    assert budget.is_late(is_last=False, is_evaluated=True)
    assert not budget.is_late(is_last=False, is_evaluated=False)
    assert not budget.is_late(is_last=True, is_evaluated=True)
    clock.now += 14  # 10 s left: two evaluations
    assert not budget.is_late(is_last=True, is_evaluated=True)
    clock.now += 1
    assert budget.is_late(is_last=True, is_evaluated=True)


@pytest.mark.parametrize("eval_freq", [1, 4])
def test_training_as_fast_as_measured_runs_all_epochs(eval_freq):
    budget, clock = make_budget(1000, eval_freq=eval_freq)
    epochs = budget.expected.epochs_within(budget.left_s() - 5)
    assert epochs == {1: 64, 4: 85}[eval_freq]  # 965 s: 64 x 15; 21 x 45 and one more with 15
    ran = train(budget, clock, epochs=epochs, train_s=lambda epoch: 10.0, tail=6)
    assert ran == [(epoch, STEPS) for epoch in range(epochs)]
    assert 900 < clock.now - 1000 <= 970


@pytest.mark.parametrize("eval_freq", [1, 5])
@pytest.mark.parametrize("factor", [1.05, 1.5, 3, 10])
@pytest.mark.parametrize("since", [0, 20, 60])
def test_slower_training_ends_in_time_with_the_whole_tail(factor, since, eval_freq):
    budget, clock = make_budget(1000, eval_freq=eval_freq)
    epochs = budget.expected.epochs_within(budget.left_s() - 5)
    tail = 6

    def seconds(epoch):
        return 10.0 * (factor if epoch >= since else 1)

    ran = train(budget, clock, epochs=epochs, train_s=seconds, tail=tail)
    used = clock.now - 1000
    assert used <= 1050  # 5 % over
    assert used > 800
    assert ran[-1][0] == epochs - 1
    places = [epoch for epoch, _ in ran]
    assert places == sorted(set(places))
    if factor < 2 and since < 60:  # else the slow epochs of the tail do not fit
        assert places[-tail:] == list(range(epochs - tail, epochs))
    gaps = [b for a, b in zip(places, places[1:], strict=False) if b > a + 1]
    assert len(gaps) <= 4  # late, not a little after every epoch


def test_one_slow_epoch_costs_few_epochs():
    """The median of recent epochs is expected, and epochs are skipped as late as possible."""
    budget, clock = make_budget(1000)
    ran = train(
        budget, clock, epochs=64, train_s=lambda epoch: 60.0 if epoch == 3 else 10.0, tail=6
    )
    assert len(ran) >= 64 - 4  # 50 s are about three epochs
    assert clock.now - 1000 <= 970 + 1


def test_long_epochs_leave_time_for_a_last_one():
    """Two epochs of 400 s are planned, and take 800 s each."""
    budget, clock = make_budget(1000, train_s=400.0, eval_s=20.0)
    assert budget.expected.epochs_within(budget.left_s() - 20) == 2
    ran = train(budget, clock, epochs=2, train_s=lambda epoch: 800.0, eval_s=20.0)
    assert [epoch for epoch, _ in ran] == [0, 1]
    assert all(0 < steps < STEPS for _, steps in ran)
    assert clock.now - 1000 <= 1050


def test_budget_without_time_for_an_epoch_ends_early():
    budget, clock = make_budget(100, train_s=400.0, eval_s=5.0)
    assert budget.expected.epochs_within(budget.left_s() - 5) == 1
    ran = train(budget, clock, epochs=1, train_s=lambda epoch: 400.0)
    assert ran == [(0, 5)]  # after 100 of 97 - 10 seconds
    assert clock.now - 1000 <= 100 + 20


def test_last_evaluation_may_use_the_margin():
    budget, clock = make_budget(1000, reserve_s=100)
    clock.now += 895
    assert budget.fits_evaluation()
    clock.now += 1
    assert not budget.fits_evaluation()


def test_resumed_training_has_the_rest_of_the_time():
    budget, clock = make_budget(1000)
    ran = train(budget, clock, epochs=64, train_s=lambda epoch: 10.0, tail=6, last=30)
    state = budget.state_dict()
    assert state == {"elapsed_s": clock.now - 1000, "train_s": 10.0, "eval_s": 5.0}
    later = Clock()
    later.now = 9e6
    resumed = TimeBudget(seconds=1000, start_s=later.now, clock=later)
    resumed.load_state_dict(state)
    assert resumed.expected == EpochTime(10.0, 5.0)
    assert resumed.left_s() == budget.left_s()
    later.now += 10  # startup
    ran += train(resumed, later, epochs=64, train_s=lambda epoch: 10.0, tail=6, first=30)
    used = state["elapsed_s"] + later.now - 9e6
    assert 900 < used <= 985
    assert [epoch for epoch, _ in ran[-6:]] == list(range(58, 64))
