"""State of a run: save and load."""

import pytest
import yaml

from rtdetrv2_pytorch.src.core.yaml_files import merge, parse_overrides
from rtdetrv2_pytorch.src.misc.errors import TrainingDiverged
from rtdetrv2_pytorch.src.robustness import precision
from rtdetrv2_pytorch.src.solver.checkpointing import write_atomically
from rtdetrv2_pytorch.src.solver.run import TrainingRun, use_trained_range
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
    run.recovery._fall_back(TrainingDiverged("bad"))
    assert str(run.amp.precision) == "float32"
    write_atomically(run.state_dict(), tmp_path / "last.pth")
    other = {**half, "amp_dtype": "bfloat16"}
    faster = TrainingRun.create(tiny_config(tmp_path, digits, resume=last, **other))
    assert str(faster.amp.precision) == "bfloat16"  # configured now
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


@pytest.mark.parametrize("use_ema", [True, False])
def test_checkpoints_have_an_ema_entry_only_with_ema(tmp_path, digits, use_ema):
    """Scripts for the public trainer read `checkpoint["ema"]["module"]` if "ema" is there."""
    run = TrainingRun.create(tiny_config(tmp_path, digits, epoches=1, use_ema=use_ema))
    assert ("ema" in run.state_dict()) == use_ema


# Settings of a resume

SGD = {"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}}


def group(key):
    return lambda run: run.optimizer.param_groups[-1][key]


# Override, value in the configuration, and the value that the run uses.
OVERRIDES = [
    ("optimizer.lr=0.001", 0.001, group("initial_lr")),
    ("optimizer.weight_decay=0.02", 0.02, group("weight_decay")),
    ("optimizer.betas=[0.8,0.95]", [0.8, 0.95], lambda run: list(group("betas")(run))),
    ("optimizer.eps=1.0e-6", 1e-6, group("eps")),
    ("optimizer.fused=false", False, group("fused")),
    ("optimizer.momentum=0.5", 0.5, group("momentum")),
    ("ema.decay=0.9", 0.9, lambda run: run.ema.decay),
    ("ema.warmups=5", 5, lambda run: run.ema.warmups),
    ("lr_scheduler.milestones=[1]", [1], lambda run: sorted(run.lr_scheduler.milestones)),
    ("lr_warmup_scheduler.warmup_duration=1", 1, lambda run: run.warmup.warmup_duration),
    ("epoches=7", 7, lambda run: run.settings.epoches),
    ("train_dataloader.total_batch_size=3", 3, lambda run: run.train_loader.batch_size),
    ("clip_max_norm=0.3", 0.3, lambda run: run.settings.clip_max_norm),
]


@pytest.fixture(scope="module")
def saved_runs(tmp_path_factory, digits):
    """Checkpoints of a run with AdamW, and of one with SGD."""
    folder = tmp_path_factory.mktemp("saved")
    for name, settings in (("AdamW", {}), ("SGD", SGD)):
        run = TrainingRun.create(tiny_config(folder / name, digits, **settings))
        for parameter in run.cfg.model.parameters():
            parameter.grad = parameter.detach() * 0.01
        run.optimizer.step()
        write_atomically(run.state_dict(), folder / f"{name}.pth")
    return folder


@pytest.mark.parametrize(("update", "value", "used"), OVERRIDES, ids=[o[0] for o in OVERRIDES])
def test_overrides_of_a_resume_are_used_and_recorded(
    saved_runs, tmp_path, digits, update, value, used
):
    is_sgd = "momentum" in update
    last = saved_runs / ("SGD.pth" if is_sgd else "AdamW.pth")
    settings = merge(SGD if is_sgd else {}, parse_overrides([update]))
    run = TrainingRun.create(tiny_config(tmp_path, digits, resume=str(last), **settings))
    assert used(run) == value
    tmp_path.mkdir(exist_ok=True)
    run.open_output()
    recorded = yaml.safe_load((tmp_path / "model_config.yml").read_text())
    for key in update.split("=")[0].split("."):
        recorded = recorded[key]
    assert recorded == value
    assert [line for line in run.changes if line.startswith(update.split("=")[0])]


def test_pixel_range_of_a_checkpoint_is_used_unless_it_is_set(tmp_path, digits):
    before = tiny_config(tmp_path, digits, pixel_range=[0, 4095])
    write_atomically(TrainingRun.create(before).state_dict(), tmp_path / "last.pth")
    last = str(tmp_path / "last.pth")
    for own, expected in ((None, (0, 4095)), ([10, 200], (10, 200))):
        cfg = tiny_config(tmp_path, digits, resume=last, pixel_range=own)
        use_trained_range(cfg, last)
        assert cfg.settings.pixel_range == expected
        assert cfg.train_dataset.pixel_range == cfg.val_dataset.pixel_range == expected
