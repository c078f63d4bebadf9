"""State of a run: save and load."""

import pytest

from rtdetrv2_pytorch.src.misc.errors import TrainingDiverged
from rtdetrv2_pytorch.src.robustness import precision
from rtdetrv2_pytorch.src.solver.checkpointing import write_atomically
from rtdetrv2_pytorch.src.solver.run import TrainingRun
from tests.tiny import tiny_config


def test_resume_keeps_reduced_precision_and_micro_batch(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    half = {"use_amp": True, "amp_dtype": "float16", "epoches": 1}
    cfg = tiny_config(tmp_path, digits, **half)
    run = TrainingRun.create(cfg)
    run.recovery._fall_back(TrainingDiverged("bad"))
    run.recovery.micro_batches.size = 1
    write_atomically(run.state_dict(), tmp_path / "last.pth")
    last = str(tmp_path / "last.pth")

    resumed = TrainingRun.create(tiny_config(tmp_path, digits, resume=last, **half))
    assert str(resumed.amp.precision) == "bfloat16"
    assert resumed.amp.scaler.get_scale() == 1.0
    assert resumed.recovery.micro_batches.size == 1
    chosen = TrainingRun.create(
        tiny_config(tmp_path, digits, resume=last, micro_batch_size=2, **half)
    )
    assert chosen.recovery.micro_batches.size == 2
    exact = TrainingRun.create(tiny_config(tmp_path, digits, resume=last, epoches=1))
    assert str(exact.amp.precision) == "float32"  # configured now, and more exact than the fallback


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {"use_amp": True, "amp_dtype": "float16"}, 65536.0),
        ({"use_amp": True, "amp_dtype": "float16"}, {}, 1.0),
        ({"use_amp": True, "amp_dtype": "float16"}, {"use_amp": True, "amp_dtype": "float16"}, 8.0),
    ],
)
def test_loss_scale_is_restored_in_the_same_precision_only(
    tmp_path, digits, before, after, expected
):
    """Float16 gradients underflow at the constant scale of float32."""
    cfg = tiny_config(tmp_path, digits, epoches=1, **before)
    run = TrainingRun.create(cfg)
    content = run.state_dict()
    if before:
        content["scaler"]["scale"] = 8.0  # as found in training
    write_atomically(content, tmp_path / "last.pth")
    last = str(tmp_path / "last.pth")
    resumed = TrainingRun.create(tiny_config(tmp_path, digits, epoches=1, resume=last, **after))
    assert resumed.amp.scaler.get_scale() == expected
