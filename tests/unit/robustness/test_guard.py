"""Detection of non-finite losses and gradients."""

import pytest
import torch
from torch import nn

from rtdetrv2_pytorch.src.misc.errors import TrainingDiverged
from rtdetrv2_pytorch.src.robustness.guard import FiniteGuard


def test_restore_buffers_undoes_a_non_finite_forward_pass():
    norm = nn.BatchNorm2d(2)
    norm(torch.randn(4, 2, 3, 3))
    good = norm.running_mean.clone()
    guard = FiniteGuard(norm, max_skipped_steps=3)
    guard.save_buffers()
    norm(torch.full((4, 2, 3, 3), torch.nan))
    assert norm.running_mean.isnan().all()
    guard.restore_buffers()
    torch.testing.assert_close(norm.running_mean, good)


def test_too_many_skipped_steps_raise_the_cause(caplog):
    guard = FiniteGuard(nn.Linear(1, 1), max_skipped_steps=3)
    for _ in range(2):
        guard.record_skipped(TrainingDiverged("image 7"))
    assert "step skipped, 2 in a row: image 7" in caplog.text
    with pytest.raises(TrainingDiverged, match=r"image 7 \(3 consecutive steps; the last good"):
        guard.record_skipped(TrainingDiverged("image 7"))


def test_finite_step_resets_the_counter():
    guard = FiniteGuard(nn.Linear(1, 1), max_skipped_steps=2)
    for _ in range(5):
        guard.record_skipped(TrainingDiverged("image 7"))
        guard.record_finite()


def test_too_many_non_finite_gradients_raise():
    guard = FiniteGuard(nn.Linear(1, 1), max_skipped_steps=5)
    with pytest.raises(TrainingDiverged, match="not finite for 50 consecutive steps"):
        for _ in range(50):
            guard.record_norm(torch.tensor(torch.inf))


def test_finite_gradients_reset_the_counter():
    guard = FiniteGuard(nn.Linear(1, 1), max_skipped_steps=5)
    for i in range(200):
        guard.record_norm(torch.tensor(torch.nan if i % 50 < 44 else 1.0))


def test_float16_gradients_may_overflow_until_the_scale_has_adapted():
    norms = [torch.tensor(1.0)] * 30 + [torch.tensor(torch.inf)] * 20
    patient = FiniteGuard(nn.Linear(1, 1), max_skipped_steps=5, uses_loss_scale=True)
    strict = FiniteGuard(nn.Linear(1, 1), max_skipped_steps=5)
    for norm in norms:
        patient.record_norm(norm)
    with pytest.raises(TrainingDiverged, match="for 20 consecutive steps"):
        for norm in norms:
            strict.record_norm(norm)
