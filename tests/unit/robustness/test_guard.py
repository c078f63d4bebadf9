"""Numbers that are not finite."""

import pytest
import torch
from torch import nn

from rtdetrv2_pytorch.src.misc.errors import TrainingDiverged
from rtdetrv2_pytorch.src.robustness.guard import FiniteGuard


def test_a_bad_forward_pass_does_not_spoil_the_running_statistics():
    norm = nn.BatchNorm2d(2)
    norm(torch.randn(4, 2, 3, 3))
    good = norm.running_mean.clone()
    guard = FiniteGuard(norm, max_skipped_steps=3)
    guard.remember()
    norm(torch.full((4, 2, 3, 3), torch.nan))
    assert norm.running_mean.isnan().all()
    guard.restore()
    torch.testing.assert_close(norm.running_mean, good)


def test_too_many_bad_steps_in_a_row_end_training_with_the_cause(caplog):
    guard = FiniteGuard(nn.Linear(1, 1), max_skipped_steps=3)
    for _ in range(2):
        guard.skip(TrainingDiverged("image 7"))
    assert "step skipped, 2 in a row: image 7" in caplog.text
    with pytest.raises(TrainingDiverged, match=r"image 7 \(for 3 steps in a row; the last good"):
        guard.skip(TrainingDiverged("image 7"))


def test_a_good_step_in_between_starts_the_count_anew():
    guard = FiniteGuard(nn.Linear(1, 1), max_skipped_steps=2)
    for _ in range(5):
        guard.skip(TrainingDiverged("image 7"))
        guard.passed()


def test_gradients_that_stay_bad_end_training():
    guard = FiniteGuard(nn.Linear(1, 1), max_skipped_steps=5)
    with pytest.raises(TrainingDiverged, match="gradients were not finite for 50 steps in a row"):
        for _ in range(50):
            guard.watch(torch.tensor(torch.inf))


def test_gradients_that_recover_are_forgiven():
    guard = FiniteGuard(nn.Linear(1, 1), max_skipped_steps=5)
    for i in range(200):
        guard.watch(torch.tensor(torch.nan if i % 50 < 44 else 1.0))


def test_float16_may_overflow_until_its_scale_has_come_down():
    norms = [torch.tensor(1.0)] * 30 + [torch.tensor(torch.inf)] * 20
    patient = FiniteGuard(nn.Linear(1, 1), max_skipped_steps=5, uses_loss_scale=True)
    strict = FiniteGuard(nn.Linear(1, 1), max_skipped_steps=5)
    for norm in norms:
        patient.watch(norm)
    with pytest.raises(TrainingDiverged, match="for 20 steps"):
        for norm in norms:
            strict.watch(norm)
