"""A non-finite loss on one rank: all ranks skip the step without a deadlock."""

import pytest

from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from tests.ranks import run_ranks
from tests.tiny import tiny_file

SCRIPT = """
import json
import torch
from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.misc import distributed
from rtdetrv2_pytorch.src.robustness.rank_watch import watch_ranks
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver.events import TrainingEvents
from rtdetrv2_pytorch.src.solver import solver as det_solver

cfg = YAMLConfig({path!r}, epoches=1, micro_batch_size={micro})
distributed.init_from_environment(cfg.device, watch=watch_ranks)
forward = cfg.criterion.forward
calls = []
def non_finite(outputs, targets, **place):
    if cfg.criterion.training:
        calls.append(len(targets))
        if distributed.rank() == 1 and place["global_step"] == 1:
            outputs["pred_logits"] = outputs["pred_logits"] * torch.nan
    return forward(outputs, targets, **place)
cfg.criterion.forward = non_finite
sums = []
after = det_solver.StepReporter.__call__
def record(self, progress):
    after(self, progress)
    sums.append(sum(float(p.detach().double().sum()) for p in cfg.model.parameters()))
det_solver.StepReporter.__call__ = record
result = DetSolver(cfg).fit()
distributed.barrier()
distributed.shutdown()
print(json.dumps([result.last_epoch, calls, sums]))
"""


@pytest.mark.parametrize(("micro", "parts"), [(2, [2] * 3), (1, [1, 1] * 3)])
def test_non_finite_loss_on_one_rank_skips_the_step_on_all(tmp_path, micro, parts):
    """Test full batches and micro-batches."""
    data = make_digits_dataset(tmp_path / "data", num_train=12, num_val=4)
    out = tmp_path / "out"
    path = tiny_file(tmp_path / "tiny.yml", out, data, train_dataloader={"total_batch_size": 4})
    first, second = run_ranks(SCRIPT.format(path=str(path), micro=micro))
    assert first == second
    last_epoch, calls, sums = first
    assert (last_epoch, calls) == (0, parts)
    assert sums[0] == sums[1] != sums[2]
    (described,) = (out / "bad_batches").iterdir()
    assert described.name == "epoch0000_step000001_rank1.json"
