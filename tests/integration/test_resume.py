"""Resume of stopped runs, equal to an uninterrupted one; see also test_random_kills."""

import json
import shutil
import threading

import pytest
import torch

from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError
from rtdetrv2_pytorch.src.misc.weights import load_checkpoint
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver.events import TrainingEvents
from rtdetrv2_pytorch.src.solver.run import TrainingRun
from tests.tiny import tiny_config

EPOCHS = 3
RUN = {
    "epoches": EPOCHS,
    # All kinds of random operations: the published ones, blur, JPEG, pasted objects, and mosaics in
    # epoch 1.
    "augmentation": "photos",
    "balanced_paste": 0.5,
    "recipe": "dense",
    "lr_scheduler": {"milestones": [2]},
    "lr_warmup_scheduler": {"warmup_duration": 3},
    "ema": {"warmups": 3},
}


def log_of(folder):
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def curve(folder):
    """Return {(epoch, step): loss} and {epoch: metrics}; of repeated steps the last one."""
    steps = {(e["epoch"], e["step"]): e["loss"] for e in log_of(folder) if e["event"] == "step"}
    epochs = {
        e["epoch"]: (e["AP"], e["val_loss"], e["lr"], e["train_loss"])
        for e in log_of(folder)
        if e["event"] == "epoch"
    }
    return steps, epochs


@pytest.fixture(scope="module")
def whole(tmp_path_factory, digits):
    """Folder and result of the uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    result = DetSolver(tiny_config(folder, digits, **RUN)).fit()
    return folder, result


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory, digits):
    """Folder of a finished run of one epoch."""
    folder = tmp_path_factory.mktemp("one_epoch")
    DetSolver(tiny_config(folder, digits, epoches=1)).fit()
    return folder


@pytest.fixture
def finished(one_epoch, tmp_path):
    """A copy of `one_epoch` that the test may change."""
    shutil.copytree(one_epoch, tmp_path, dirs_exist_ok=True)
    return tmp_path


class StopAt(TrainingEvents):
    """Requests a stop in the second epoch, during training or evaluation, or at its end."""

    def __init__(self, moment):
        self.moment = moment
        self.solver = None
        self.epoch = -1

    def epoch_started(self, epoch, num_steps):
        self.epoch = epoch

    def step_finished(self, report):
        if self.moment == "step" and (report.epoch, report.step) == (1, 0):
            self.solver.stop("test")

    def evaluation_step_finished(self, step, num_steps):
        if self.moment == "evaluation" and self.epoch == 1:
            self.solver.stop("test")

    def epoch_finished(self, report):
        if self.moment == "epoch" and report.epoch == 1:
            self.solver.stop("test")


@pytest.mark.parametrize("moment", ["step", "evaluation", "epoch"])
def test_resume_of_a_stopped_run_equals_the_uninterrupted_run(whole, tmp_path, digits, moment):
    events = StopAt(moment)
    events.solver = DetSolver(tiny_config(tmp_path, digits, **RUN), events=events)
    stopped = events.solver.fit()
    assert stopped.stopped == "test"
    assert stopped.last_epoch == (1 if moment == "epoch" else 0)
    assert len(curve(tmp_path)[1]) == stopped.last_epoch + 1

    last = str(tmp_path / "last.pth")
    resumed = DetSolver(tiny_config(tmp_path, digits, resume=last, **RUN)).fit()
    assert resumed.stopped is None
    assert resumed.last_epoch == EPOCHS - 1
    steps, epochs = curve(tmp_path)
    expected_steps, expected_epochs = curve(whole[0])
    assert steps == expected_steps
    for epoch, values in expected_epochs.items():
        assert epochs[epoch][:3] == values[:3]
        # The losses of an interrupted epoch are added in two parts.
        assert epochs[epoch][3] == pytest.approx(values[3], rel=1e-6)
    ours, theirs = load_checkpoint(last), load_checkpoint(whole[0] / "last.pth")
    for part in ("model", "ema"):
        a, b = (c[part]["module"] if part == "ema" else c[part] for c in (ours, theirs))
        for key in a:
            assert torch.equal(a[key], b[key]), f"{part} {key}"
    assert ours["ema"]["updates"] == theirs["ema"]["updates"] == 9
    assert ours["progress"] == theirs["progress"]


def test_resume_keeps_the_best_epoch(finished, tmp_path, digits):
    checkpoint = load_checkpoint(tmp_path / "last.pth")
    checkpoint["progress"]["best"] = {"ap": 0.99, "epoch": 0, "stale_epochs": 0}
    torch.save(checkpoint, tmp_path / "last.pth")
    best = load_checkpoint(tmp_path / "best.pth")
    best["metrics"]["AP"] = 0.99
    torch.save(best, tmp_path / "best.pth")
    before = (tmp_path / "best.pth").read_bytes()
    last = str(tmp_path / "last.pth")
    result = DetSolver(tiny_config(tmp_path, digits, epoches=2, resume=last)).fit()
    assert result.best_epoch == 0
    assert (tmp_path / "best.pth").read_bytes() == before


def test_resume_without_ema_weights_starts_from_the_raw_weights(finished, tmp_path, digits, caplog):
    checkpoint = load_checkpoint(tmp_path / "last.pth")
    checkpoint["ema"] = None
    torch.save(checkpoint, tmp_path / "last.pth")
    cfg = tiny_config(tmp_path, digits, resume=str(tmp_path / "last.pth"))
    run = TrainingRun.create(cfg)
    assert "has no EMA weights; the EMA starts from the raw weights" in caplog.text
    key = "decoder.enc_score_head.weight"
    torch.testing.assert_close(run.ema.module.state_dict()[key], checkpoint["model"][key])


def public_checkpoint(cfg, *, last_epoch):
    """Return a checkpoint with the content of the public trainer's files, after 3 steps an epoch.

    It uses torch's AdamW with its defaults, which is not fused, and steps the schedule only after
    the warm-up.
    """
    run = TrainingRun.create(cfg)
    groups = [
        {"params": list(g["params"]), "weight_decay": g["weight_decay"]}
        for g in run.optimizer.param_groups
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[1000])
    for group in groups:
        for p in group["params"]:
            p.grad = torch.full_like(p, 1e-3)
    for _ in range(3 * (last_epoch + 1)):
        optimizer.step()
    return {
        "date": "2024-07-01T12:00:00",
        "last_epoch": last_epoch,
        "model": cfg.model.state_dict(),
        "ema": {"module": run.ema.module.state_dict(), "updates": 3 * (last_epoch + 1)},
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": schedule.state_dict(),
        "lr_warmup_scheduler": {
            "last_step": 3 * (last_epoch + 1) - 1,
            "warmup_duration": 2000,
            "warmup_end_values": [1e-4] * len(groups),
        },
        "scaler": torch.amp.GradScaler("cpu", init_scale=8.0).state_dict(),
        "criterion": {},
        "postprocessor": {},
    }


@pytest.mark.parametrize("scaled", [False, True])
def test_resume_of_a_checkpoint_of_the_public_trainer(tmp_path, digits, scaled):
    torch.save(public_checkpoint(tiny_config(tmp_path, digits), last_epoch=0), tmp_path / "p.pth")
    amp = {"use_amp": True, "amp_dtype": "float16"} if scaled else {}
    cfg = tiny_config(tmp_path, digits, epoches=2, resume=str(tmp_path / "p.pth"), **amp)
    result = DetSolver(cfg).fit()
    assert result.last_epoch == 1
    assert [key for key in curve(tmp_path)[0] if key[0] == 1] == [(1, 0), (1, 1), (1, 2)]
    saved = load_checkpoint(tmp_path / "last.pth")
    assert saved["ema"]["updates"] == 6
    assert {int(entry["step"]) for entry in saved["optimizer"]["state"].values()} == {6}


class PlanRecorder(TrainingEvents):
    def train_started(self, plan):
        self.plan = plan


def test_settings_of_a_resume_win_and_are_shown(finished, tmp_path, digits):
    overrides = {
        "optimizer": {"lr": 0.001, "weight_decay": 0.02, "fused": False},
        "lr_scheduler": {"type": "CosineAnnealingLR", "T_max": 2},
        "lr_warmup_scheduler": {"warmup_duration": 0},
        "ema": {"decay": 0.9},
    }
    cfg = tiny_config(tmp_path, digits, epoches=2, resume=str(tmp_path / "last.pth"), **overrides)
    events = PlanRecorder()
    DetSolver(cfg, events=events).fit()
    changes = "\n".join(events.plan.changes)
    assert "optimizer.lr: 0.0001 -> 0.001 since the resumed checkpoint" in changes
    assert "lr_scheduler.type: MultiStepLR -> CosineAnnealingLR" in changes
    assert "ema.decay: " in changes
    rates = {e["epoch"]: e["lr"] for e in log_of(tmp_path) if e["event"] == "step"}
    # The cosine of half the run: 0.001 * (1 + cos(pi / 2)) / 2
    assert rates[1] == pytest.approx(0.0005)
    group = load_checkpoint(tmp_path / "last.pth")["optimizer"]["param_groups"][-1]
    assert (group["weight_decay"], group["fused"]) == (0.02, False)


def test_resume_without_optimizer_state_names_the_remedy(finished, tmp_path, digits):
    best = str(tmp_path / "best.pth")
    with pytest.raises(CheckpointError, match="no optimizer.*resume from last.pth, or start a new"):
        DetSolver(tiny_config(tmp_path, digits, resume=best)).fit()


def test_resume_with_another_model_raises(finished, tmp_path, digits):
    last = str(tmp_path / "last.pth")
    cfg = tiny_config(tmp_path, digits, resume=last, RTDETRTransformerv2={"num_layers": 1})
    with pytest.raises(CheckpointError, match="contains another model: .*unknown"):
        DetSolver(cfg).fit()


def test_stop_from_another_thread(tmp_path, digits):
    solver = DetSolver(tiny_config(tmp_path, digits, epoches=500, checkpoint_freq=0))
    timer = threading.Timer(1.5, solver.stop, args=["thread"])
    timer.start()
    result = solver.fit()
    assert result.stopped == "thread"
    assert load_checkpoint(tmp_path / "last.pth")["progress"]["epoch"] <= result.last_epoch + 1


def test_resume_in_another_folder_copies_the_best_weights(whole, tmp_path, digits):
    last = str(whole[0] / "last.pth")
    DetSolver(tiny_config(tmp_path, digits, resume=last, **RUN)).fit()
    ours, theirs = (load_checkpoint(folder / "best.pth") for folder in (tmp_path, whole[0]))
    assert ours["metrics"]["AP"] == theirs["metrics"]["AP"]
    assert ours["last_epoch"] == theirs["last_epoch"]


def test_resume_replaces_the_best_weights_of_another_run(whole, tmp_path, digits):
    best = load_checkpoint(whole[0] / "best.pth")
    other = {**best, "metrics": {**best["metrics"], "AP": 0.5}}
    torch.save(other, tmp_path / "best.pth")
    cfg = tiny_config(tmp_path, digits, resume=str(whole[0] / "last.pth"), **RUN)
    with pytest.raises(ConfigError, match="contains the results of another training"):
        DetSolver(cfg).fit()
    assert load_checkpoint(tmp_path / "best.pth")["metrics"]["AP"] == 0.5
    DetSolver(cfg, overwrite=True).fit()
    assert load_checkpoint(tmp_path / "best.pth")["metrics"]["AP"] == best["metrics"]["AP"]


def test_resume_without_best_weights_keeps_the_best_remaining_epoch(
    whole, tmp_path, digits, caplog
):
    alone = tmp_path / "alone.pth"
    alone.write_bytes((whole[0] / "last.pth").read_bytes())
    more = {**RUN, "epoches": EPOCHS + 1}
    result = DetSolver(tiny_config(tmp_path / "out", digits, resume=str(alone), **more)).fit()
    assert result.best_epoch == EPOCHS
    assert "keeping the best of the remaining epochs" in caplog.text


def test_resume_with_another_optimizer_raises(whole, tmp_path, digits):
    last = str(whole[0] / "last.pth")
    for optimizer, message in (
        ({"type": "SGD"}, "its optimizer is Adam or AdamW, here it is SGD"),
        ({"params": []}, "its parameter groups have"),
    ):
        cfg = tiny_config(tmp_path, digits, resume=last, optimizer=optimizer)
        with pytest.raises(CheckpointError, match=f"{message}.*tuning"):
            DetSolver(cfg).fit()


def test_used_folder_is_rejected_or_emptied_when_the_training_starts(finished, tmp_path, digits):
    (tmp_path / "checkpoint0007.pth").touch()
    before = {path.name: path.read_bytes() for path in tmp_path.glob("[a-z]*.*")}
    with pytest.raises(ConfigError, match=r"choose another output_dir, resume .* \(overwrite, "):
        DetSolver(tiny_config(tmp_path, digits)).fit()
    after = {path.name: path.read_bytes() for path in tmp_path.glob("[a-z]*.*")}
    assert after == before
    (tmp_path / "last.pth").unlink()
    with pytest.raises(
        ConfigError, match=r"start from its weights \(tuning = .*best.pth; it has no"
    ):
        DetSolver(tiny_config(tmp_path, digits)).fit()
    # Until it starts, the old weights exist.
    cfg = tiny_config(tmp_path, digits, tuning=str(tmp_path / "best.pth"))
    solver = DetSolver(cfg, overwrite=True)
    solver.stop("after a step")
    assert list(solver.fit().checkpoints) == ["last"]
    assert [event["epoch"] for event in log_of(tmp_path) if event["event"] == "step"] == [0]


def test_damaged_checkpoint_is_an_error_after_a_restart_only(tmp_path, digits, monkeypatch, caplog):
    (tmp_path / "last.pth").write_bytes(b"partial")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a-run")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    solver = DetSolver(tiny_config(tmp_path, digits), overwrite=True)
    solver.stop("after a step")
    with pytest.raises(CheckpointError, match="damaged"):  # it may belong to this run
        solver.fit()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert solver.fit().stopped == "after a step"
    assert "it belongs to another run" in caplog.text
    assert load_checkpoint(tmp_path / "last.pth")["progress"]["run"] == "a-run"


def test_resume_of_a_finished_run_evaluates_the_best_weights(finished, tmp_path, digits, caplog):
    before = curve(tmp_path)
    last = str(tmp_path / "last.pth")
    result = DetSolver(tiny_config(tmp_path, digits, epoches=1, resume=last)).fit()
    assert "this run has finished after 1 epoch: evaluating best.pth" in caplog.text
    assert (result.last_epoch, curve(tmp_path)) == (0, before)
