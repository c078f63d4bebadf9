"""The loss curve of twenty seeded steps: what a refactoring must leave alone.

A change that moves it on purpose says so in the changelog, and regenerates the file in a commit
of its own: `python -m tests.integration.test_golden_loss`.
"""

import tempfile
from pathlib import Path

import pytest

from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.misc.seeding import seed_everything
from rtdetrv2_pytorch.src.solver.loop import train_one_epoch
from rtdetrv2_pytorch.src.solver.run import TrainingRun
from rtdetrv2_pytorch.src.solver.stopping import StopFlag
from tests.tiny import tiny_config

GOLDEN = Path(__file__).parents[1] / "golden" / "loss_tiny_cpu.txt"
STEPS = 20
# Rounding differs between processors and versions of torch, and grows with every step.
EXACT_STEPS = 6
# No resize: versions of torchvision round its pixels differently. And as many queries as there are
# anchors: which of them are chosen would hang on the last bit.
CROPS = [
    {"type": "RandomCrop", "size": [128, 128]},
    {"type": "ConvertPILImage"},
    {"type": "ConvertBoxes", "fmt": "cxcywh", "normalize": True},
]


def loss_curve(folder: Path) -> list[float]:
    data = make_digits_dataset(folder / "data", num_train=8, num_val=1)
    cfg = tiny_config(
        folder,
        data,
        eval_spatial_size=[128, 128],
        RTDETRTransformerv2={"num_queries": 256 + 64 + 16},
        lr_warmup_scheduler={"warmup_duration": 10},
        train_dataloader={"dataset": {"transforms": {"ops": CROPS, "policy": {"ops": []}}}},
    )
    seed_everything(0)
    run = TrainingRun.create(cfg)
    losses: list[float] = []
    for epoch in range(STEPS // len(cfg.train_dataloader)):
        run.epoch = epoch
        train_one_epoch(
            run,
            stop=StopFlag(),
            after_step=lambda progress: losses.append(sum(progress.read_last().values())),
        )
    return losses


def test_twenty_steps_give_the_golden_losses(tmp_path):
    golden = [float(line) for line in GOLDEN.read_text().splitlines()]
    curve = loss_curve(tmp_path)
    assert len(golden) == len(curve) == STEPS
    assert curve[:EXACT_STEPS] == pytest.approx(golden[:EXACT_STEPS], rel=1e-3)
    assert curve == pytest.approx(golden, rel=0.05)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        curve = loss_curve(Path(name))
    GOLDEN.write_text("".join(f"{loss:.6f}\n" for loss in curve))
