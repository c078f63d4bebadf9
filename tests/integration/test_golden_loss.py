"""The golden loss curve: a refactoring must not change the losses of twenty seeded steps.

A change that moves the curve on purpose says so in the changelog, and regenerates the file in a
commit of its own: `python -m tests.integration.test_golden_loss`.

The network computes in float64. In float32, results of the first step differ by 1e-7 to 1e-5
between numbers of threads and instruction sets, and training multiplies a difference by about 2
per step (decision 0005).
"""

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.misc.seeding import seed_everything
from rtdetrv2_pytorch.src.solver.loop import train_one_epoch
from rtdetrv2_pytorch.src.solver.run import TrainingRun
from rtdetrv2_pytorch.src.solver.stopping import StopFlag
from rtdetrv2_pytorch.src.structures import GroundTruth
from tests.tiny import WHOLE_BACKBONE, tiny_config

GOLDEN = Path(__file__).parents[1] / "golden" / "loss_tiny_cpu.txt"
STEPS = 20
SIZE = [96, 128]
NUM_ANCHORS = 12 * 16 + 6 * 8 + 3 * 4
# Without Resize: versions of torchvision round its pixels differently.
CROPS = [
    {"type": "RandomCrop", "size": SIZE},
    {"type": "ConvertPILImage"},
    {"type": "ConvertBoxes", "fmt": "cxcywh", "normalize": True},
]


@contextmanager
def float64() -> Iterator[None]:
    """Compute in float64, random initial weights included."""
    to_float32, from_targets = torch.Tensor.float, GroundTruth.from_targets

    def widen(tensor):  # scalars are not converted: the loss scaler requires float32
        return tensor.double() if tensor.dim() else to_float32(tensor)

    def wide_targets(targets, device):
        truth = from_targets(targets, device)
        return dataclasses.replace(truth, boxes=truth.boxes.double())

    default = torch.get_default_dtype()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", widen)
        patch.setattr(GroundTruth, "from_targets", wide_targets)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(default)


def loss_curve(folder: Path) -> list[float]:
    data = make_digits_dataset(folder / "data", num_train=8, num_val=1)
    losses: list[float] = []
    with float64():
        cfg = tiny_config(
            folder,
            data,
            eval_spatial_size=SIZE,
            # All anchors become queries: no selection depends on rounding.
            **merge(WHOLE_BACKBONE, {"RTDETRTransformerv2": {"num_queries": NUM_ANCHORS}}),
            lr_warmup_scheduler={"warmup_duration": 10},
            train_dataloader={"dataset": {"transforms": {"ops": CROPS, "policy": {"ops": []}}}},
        )
        seed_everything(0)
        run = TrainingRun.create(cfg)
        for epoch in range(STEPS // len(run.train_loader)):
            run.epoch = epoch
            train_one_epoch(
                run,
                stop=StopFlag(),
                after_step=lambda progress: losses.append(sum(progress.read_last().values())),
            )
    assert {p.dtype for p in run.model.parameters()} == {torch.float64}
    return losses


def test_twenty_steps_have_the_golden_losses(tmp_path):
    golden = [float(line) for line in GOLDEN.read_text().splitlines()]
    curve = loss_curve(tmp_path)
    assert len(golden) == len(curve) == STEPS
    assert curve == pytest.approx(golden, rel=1e-4)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        curve = loss_curve(Path(name))
    GOLDEN.write_text("".join(f"{loss:.6f}\n" for loss in curve))
