"""A training step synchronizes with the device once, for the matching costs."""

import traceback
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rtdetrv2_pytorch.src.misc.devices import wait_for
from rtdetrv2_pytorch.src.solver.progress import EpochProgress
from rtdetrv2_pytorch.src.solver.run import TrainingRun
from rtdetrv2_pytorch.src.solver.step import train_step
from tests.tiny import tiny_config


def steps(tmp_path, digits, **overrides):
    """Return a function that trains a step."""
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


class DeviceReads(TorchDispatchMode):
    """Records the functions that read values from the device, which would synchronize."""

    names = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal")

    def __init__(self):
        super().__init__()
        self.functions = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name.removeprefix("aten::").rstrip("_2") in self.names:
            stack = traceback.extract_stack()
            here = [f for f in stack if "/rtdetrv2_pytorch/" in f.filename] or stack[:-1]
            self.functions.append(f"{Path(here[-1].filename).name}: {here[-1].name}")
        return func(*args, **(kwargs or {}))


def test_step_on_a_cpu_reads_only_the_loss(tmp_path, digits):
    """A step on a GPU reads the same values, but not the loss."""
    step = steps(tmp_path, digits)
    step()
    with DeviceReads() as reads:
        step()
    assert reads.functions == ["recovery.py: _check_finite"]


def test_recorder_finds_reads():
    with DeviceReads() as reads:
        bool(torch.ones(1) > 0)
        torch.ones(2)[torch.tensor([True, False])] + torch.ones(1)
        torch.ones(2).nonzero()
        wait_for(torch.ones(2))
    assert len(reads.functions) >= 2


@pytest.mark.gpu
def test_step_on_a_gpu_synchronizes_once(tmp_path, digits, gpu):
    step = steps(tmp_path, digits, device="cuda", use_amp=True)
    for _ in range(2):  # the first step allocates memory and queries the device
        step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_wait_for_returns_the_values(gpu):
    tensor = torch.arange(1000, device=gpu) * 2
    assert wait_for(tensor).tolist() == list(range(0, 2000, 2))
