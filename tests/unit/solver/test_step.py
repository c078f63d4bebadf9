"""Gradients of one training step and its micro-batches."""

import pytest
import torch
from torch import nn

from rtdetrv2_pytorch.src.robustness import precision
from rtdetrv2_pytorch.src.solver import step
from rtdetrv2_pytorch.src.solver.run import TrainingRun
from rtdetrv2_pytorch.src.solver.step import accumulation_group, backward
from rtdetrv2_pytorch.src.structures import StepBatch
from tests.tiny import tiny_config

PLAIN_SGD = {
    "clip_max_norm": 0.0,
    "RTDETRTransformerv2": {"num_denoising": 0},
    "optimizer": {"type": "SGD", "lr": 1.0, "weight_decay": 0.0, "params": []},
    "lr_warmup_scheduler": {"warmup_duration": 0},
}


def freeze_batch_norm(run):
    """Make the output of an image independent of the other images of its batch."""
    run.model.train()
    for module in run.model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.train = lambda mode=True, module=module: module


def gradients(run):
    return torch.cat([p.grad.flatten() for p in run.model.parameters() if p.grad is not None])


def whole_batch(cfg):
    cfg.train_dataloader.set_epoch(0)
    images, targets = next(iter(cfg.train_dataloader))
    return StepBatch(images, targets, (64, 96), 0, 0, 0)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_gradients_of_micro_batches_add_up_to_those_of_the_batch(tmp_path, digits, size):
    cfg = tiny_config(tmp_path, digits, train_dataloader={"total_batch_size": 6}, **PLAIN_SGD)
    run = TrainingRun.create(cfg)
    freeze_batch_norm(run)
    batch = whole_batch(cfg)
    counts = [len(t["labels"]) for t in batch.targets]
    assert len(set(counts)) > 1  # otherwise all weights are equal
    whole_losses = backward(run, batch, group_size=1)
    whole = gradients(run)
    run.optimizer.zero_grad()
    run.recovery.micro_batches.size = size
    losses = backward(run, batch, group_size=1)
    torch.testing.assert_close(
        gradients(run), whole, rtol=1e-3, atol=1e-4 * float(whole.abs().max())
    )
    for name, value in whole_losses.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-6)


def test_micro_batch_without_boxes_has_the_right_weight(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits, train_dataloader={"total_batch_size": 6}, **PLAIN_SGD)
    run = TrainingRun.create(cfg)
    freeze_batch_norm(run)
    batch = whole_batch(cfg)
    for target in batch.targets[:3]:
        target["boxes"], target["labels"] = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    backward(run, batch, group_size=1)
    whole = gradients(run)
    run.optimizer.zero_grad()
    run.recovery.micro_batches.size = 3  # the first micro-batch has no boxes
    backward(run, batch, group_size=1)
    torch.testing.assert_close(
        gradients(run), whole, rtol=1e-3, atol=1e-4 * float(whole.abs().max())
    )


def test_micro_batches_are_weighted_by_the_boxes_of_all_ranks(monkeypatch):
    """This rank has 3 and 0 boxes, the other 2 and 0; divisors: 5 and 1 (not 0), in total 5."""
    other = torch.tensor([2.0, 0.0, 2.0])
    monkeypatch.setattr(step.distributed, "sum_over_ranks", lambda mine: mine + other)
    targets = [{"labels": torch.zeros(n, dtype=torch.int64)} for n in (2, 1, 0)]
    shares = step._shares_of_boxes(targets, [slice(0, 2), slice(2, 3)])
    assert shares == pytest.approx([1.0, 1 / 5])


@pytest.mark.parametrize(
    ("step", "num_steps", "size", "expected"),
    [(0, 5, 1, (0, 1)), (0, 5, 2, (1, 2)), (3, 5, 2, (3, 2)), (4, 5, 2, (4, 1)), (2, 3, 4, (2, 3))],
)
def test_accumulation_group_ends_with_the_epoch(step, num_steps, size, expected):
    assert accumulation_group(step, num_steps, size) == expected


def test_mixed_precision_trains_all_parameters_of_float32(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    trained = {}
    for options in ({}, {"use_amp": True, "amp_dtype": "bfloat16"}):
        run = TrainingRun.create(tiny_config(tmp_path, digits, **options))
        backward(run, whole_batch(run.cfg), group_size=1)
        named = run.model.named_parameters()
        trained[str(run.amp.precision)] = {n for n, p in named if p.grad is not None}
    assert trained["bfloat16"] == trained["float32"]
    assert "decoder.enc_score_head.weight" in trained["bfloat16"]
