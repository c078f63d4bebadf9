"""Runs of `rtdetrv2 train`: command, resume, result; the training itself is replaced."""

import json

import pytest
import torch

from benchmarks.accuracy import ours
from benchmarks.accuracy.averaging import average_best
from benchmarks.accuracy.jobs import Experiment, Job
from benchmarks.accuracy.processes import RunError
from benchmarks.accuracy.recipes import find_recipe
from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.report.run_log import RunLog
from tests.accuracy_results import dataset

PLAN = {
    **{"event": "plan", "epochs": 2, "first_epoch": 0, "steps_per_epoch": 3, "batch_size": 4},
    **{"image_size_hw": [64, 64], "precision": "float32", "schedule": ["a"], "changes": ["b"]},
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return make_digits_dataset(tmp_path_factory.mktemp("data"), num_train=12, num_val=4)


@pytest.fixture
def experiment(tmp_path):
    return Experiment(results=tmp_path / "results", work=tmp_path / "work")


@pytest.fixture
def job(digits):
    return Job(dataset=dataset("digits.v2", digits, batch=4), recipe="warmup-15", seed=1)


def epoch(number, ap):
    return {
        **{"event": "epoch", "epoch": number, "train_s": 50.0, "eval_s": 10.0},
        **{"AP": ap, "AP50": ap + 0.2, "per_class": {"3": {"AP": ap}, "4": {"AP": None}}},
    }


def end(stopped=None):
    return {"event": "end", "stopped": stopped, "best": {"AP": 0.4, "AP50": 0.6, "val_loss": 3.0}}


@pytest.fixture
def training(monkeypatch, job, experiment):
    """Replace the process; returns its commands, and what it writes to log.jsonl."""
    folder, commands, events = job.folder(experiment), [], []

    def run_logged(command, log, *, on_poll):
        commands.append(command)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "last.pth").touch()
        log.write_text("first\nlast\n")
        (folder / "log.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
        on_poll()

    monkeypatch.setattr(ours, "run_logged", run_logged)
    return folder, commands, events


def test_result_of_a_run(job, experiment, training):
    folder, commands, events = training
    events += [PLAN, epoch(0, 0.4), epoch(1, 0.3), end()]
    shares = []
    found = ours.run(job, experiment, shares.append)
    assert [(p.minutes, p.epoch, p.AP, p.AP50) for p in found.curve] == [
        (1.0, 1, 0.4, 0.6),
        (2.0, 2, 0.3, 0.5),
    ]
    assert found.curve[0].per_class == {"3": 0.4}
    assert (found.minutes, found.steps, found.best) == (2.0, 6, {"AP": 0.4, "AP50": 0.6})
    assert (found.is_resumed, found.log, shares) == (False, ["first", "last"], [1.0])
    # 12 images in batches of 4 for 2 epochs are 6 steps; 15 % of them is one.
    assert found.settings["update"]["lr_warmup_scheduler.warmup_duration"] == 1
    assert [path.name for path in folder.parent.iterdir()] == ["digits.v2_warmup-15_s1.log"]
    assert len(commands) == 1


def test_command(job, experiment, training, digits):
    folder, commands, events = training
    events += [PLAN, epoch(0, 0.4), epoch(1, 0.3), end()]
    ours.run(job, experiment, lambda share: None)
    options = commands[0][4:]  # python -m rtdetrv2 train
    assert options[:3] == ["--no-doctor", "--weights", "none"]
    pairs = dict(zip(options[3:19:2], options[4:19:2], strict=True))
    assert pairs == {
        **{"--data": str(digits), "--model": "S", "--epochs": "2", "--batch-size": "4"},
        **{"--size": "64", "--seed": "1", "--device": "cpu", "--output-dir": str(folder)},
    }
    assert "lr_warmup_scheduler.warmup_duration=1" in options
    assert "loggers=[]" in options


def test_repeated_images_take_about_as_many_steps(tmp_path):
    # Class 0 is in all 16 images and class 1 in one of them: factor sqrt(0.53 / (1 / 16)) = 2.9,
    # so that an epoch has 17 images.
    weights = [1.0, *[0.0] * 9]
    folder = make_digits_dataset(tmp_path, num_train=16, num_val=1, class_weights=weights)
    path = folder / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"].append({**content["annotations"][0], "id": 999, "category_id": 1})
    path.write_text(json.dumps(content))

    def length(recipe, **values):
        data = dataset("rare", folder, **values)
        job = Job(dataset=data, recipe=recipe, seed=1)
        return ours._length(job, find_recipe(recipe), data.splits().train)

    repeats = {"repeat_threshold": 0.53}
    assert length("no-paste", batch=1, epochs=50) == (50, 800, {})
    assert length("repeat-rare", batch=1, epochs=50) == (47, 799, repeats)
    assert length("repeat-rare", batch=2, epochs=8) == (8, 64, repeats)


def test_stopped_run_is_resumed_from_its_checkpoint(job, experiment, training):
    folder, commands, events = training
    events += [PLAN, epoch(0, 0.4), end("SIGTERM")]
    with pytest.raises(RunError, match="stopped after 1 epochs"):
        ours.run(job, experiment, lambda share: None)
    assert (folder / "last.pth").is_file()
    events += [{**PLAN, "first_epoch": 1}, epoch(1, 0.5), end()]
    found = ours.run(job, experiment, lambda share: None)
    assert commands[1][-2:] == ["--resume", str(folder / "last.pth")]
    assert "--weights" not in commands[1]
    assert ([p.AP for p in found.curve], found.is_resumed) == ([0.4, 0.5], True)


def test_complete_run_is_not_trained_again(job, experiment, training):
    folder, commands, events = training
    folder.mkdir(parents=True)
    lines = [PLAN, epoch(0, 0.4), epoch(1, 0.3), end()]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert ours.run(job, experiment, lambda share: None).minutes == 2.0
    assert commands == []


def test_epochs_without_an_evaluation_take_time_only():
    without = {"event": "epoch", "epoch": 0, "train_s": 50.0, "eval_s": 0.0}
    log = RunLog(epochs=[without, epoch(1, 0.3)])
    assert [(point.minutes, point.epoch) for point in ours.curve(log)] == [(1.833, 2)]


def test_mean_of_the_best_weights(tmp_path):
    for number, value in enumerate((1.0, 5.0, 3.0)):
        model = {"a": torch.full((2,), value), "steps": torch.tensor(number)}
        torch.save({"model": model, "config": {}}, tmp_path / f"checkpoint{number:04d}.pth")
    epochs = [epoch(0, 0.1), epoch(1, 0.3), epoch(2, 0.2)]
    content = torch.load(average_best(tmp_path, epochs, 2))
    assert content["model"]["a"].tolist() == [4.0, 4.0]
    assert content["model"]["steps"].item() == 1
