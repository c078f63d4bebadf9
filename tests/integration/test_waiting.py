"""Inside a training step the host waits for the device once, for the matching's costs."""

import traceback
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rtdetrv2_pytorch.src.misc.transfers import wait_for
from rtdetrv2_pytorch.src.solver.progress import EpochProgress
from rtdetrv2_pytorch.src.solver.run import TrainingRun
from rtdetrv2_pytorch.src.solver.step import train_step
from tests.tiny import tiny_config


def steps(tmp_path, digits, **overrides):
    """A function that trains one more step."""
    cfg = tiny_config(tmp_path, digits, use_ema=True, clip_max_norm=0.1, **overrides)
    run = TrainingRun.create(cfg)
    run.model.train()
    run.criterion.train()
    [(images, targets), *_] = list(cfg.train_dataloader)
    if cfg.device.type == "cuda":
        images = images.pin_memory()
    progress = EpochProgress(epoch=0, num_steps=100)

    def step():
        train_step(run, images, targets, progress)
        progress.step += 1

    return step


class Questions(TorchDispatchMode):
    """Notes which function asks for values that the host would have to wait for."""

    names = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal")

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name.removeprefix("aten::").rstrip("_2") in self.names:
            stack = traceback.extract_stack()
            here = [f for f in stack if "/rtdetrv2_pytorch/" in f.filename] or stack[:-1]
            self.asked.append(f"{Path(here[-1].filename).name}: {here[-1].name}")
        return func(*args, **(kwargs or {}))


def test_only_the_check_of_the_loss_asks_on_a_cpu_where_nobody_waits(tmp_path, digits):
    """What a step asks for on a CPU, it asks for on a GPU: all but the check of the loss."""
    step = steps(tmp_path, digits)
    step()
    with Questions() as questions:
        step()
    assert questions.asked == ["recovery.py: _check_finite"]


def test_the_notes_find_questions():
    with Questions() as questions:
        bool(torch.ones(1) > 0)
        torch.ones(2)[torch.tensor([True, False])] + torch.ones(1)
        torch.ones(2).nonzero()
        wait_for(torch.ones(2))
    assert len(questions.asked) >= 2


@pytest.mark.gpu
def test_a_step_waits_once_by_name(tmp_path, digits, gpu):
    step = steps(tmp_path, digits, device="cuda", use_amp=True)
    for _ in range(2):  # the first allocates, and asks for what is there
        step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_waiting_gives_the_values(gpu):
    tensor = torch.arange(1000, device=gpu) * 2
    assert wait_for(tensor).tolist() == list(range(0, 2000, 2))
