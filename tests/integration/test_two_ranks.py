"""Training with multiple ranks on CPUs, with gloo."""

import json
import os
import signal
import sys

import pytest
import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.launcher.api import LaunchConfig

from rtdetrv2.commands.train import main
from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.misc.seeding import seed_everything
from rtdetrv2_pytorch.src.misc.weights import load_checkpoint
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver import solver as det_solver
from rtdetrv2_pytorch.src.solver.events import TrainingEvents
from tests.ranks import end_ranks, launch_forked, run_ranks
from tests.tiny import tiny_config, tiny_file

SCRIPT = """
from rtdetrv2.commands.train import main
print(main(["-c", {path!r}]))
"""


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """Twelve training images, seven of them without boxes, and five validation images."""
    data = make_digits_dataset(tmp_path_factory.mktemp("sparse"), num_train=12, num_val=5)
    path = data / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    labeled = {image["id"] for image in content["images"][:5]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in labeled]
    path.write_text(json.dumps(content))
    return data


# A large eps makes the steps proportional to the gradients. With the default, Adam turns a rounding
# difference of a small gradient into a whole step.
SHARED_RUN = {
    "train_dataloader": {"total_batch_size": 4, "collate_fn": {"scales": [64, 96, 128]}},
    "val_dataloader": {"total_batch_size": 4},
    "optimizer": {"lr": 0.01, "eps": 1.0},
    "ema": {"decay": 0.5, "warmups": 0},
    "save_optimizer": True,
    "save_ema": True,
}


def run_of(folder, data, count, **overrides):
    """Train with `count` ranks; returns log and checkpoint."""
    path = run_file(folder, data, **overrides)
    if count == 1:
        assert main(["-c", str(path)]) == 0
    else:
        assert run_ranks(SCRIPT.format(path=str(path)), count) == [0] * count
    return outcome(folder)


def run_file(folder, data, **overrides):
    folder.mkdir()
    return tiny_file(folder / "tiny.yml", folder / "out", data, **merge(SHARED_RUN, overrides))


def outcome(folder):
    events = [json.loads(line) for line in (folder / "out/log.jsonl").read_text().splitlines()]
    return events, load_checkpoint(folder / "out/last.pth")


@pytest.fixture(scope="module")
def one_process(tmp_path_factory, sparse):
    """Folder of a run of two epochs with one rank."""
    folder = tmp_path_factory.mktemp("one") / "1"
    run_of(folder, sparse, 1)
    return folder


def assert_same_run(run, expected, start, *, epochs):
    """Assert that losses, metrics and weights of two runs are equal.

    Args:
        run: log and checkpoint.
        expected: those of the run with one rank.
        start: initial weights of both; the distance from them is the scale of the tolerance.
        epochs: epochs to compare.
    """
    (events, checkpoint), (single, wanted) = run, expected
    for kind, count in (("step", 3 * len(epochs)), ("epoch", len(epochs))):
        mine, theirs = (
            [e for e in log if e["event"] == kind and e["epoch"] in epochs]
            for log in (events, single)
        )
        assert len(mine) == len(theirs) == count
        for one, other in zip(mine, theirs, strict=True):
            if kind == "step":
                assert one["global_step"] == other["global_step"]
                assert one["losses"] == pytest.approx(other["losses"], rel=2e-3, abs=1e-4)
                assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-2)
            else:
                assert one["num_images"] == other["num_images"] == 5
                assert one["AP"] == pytest.approx(other["AP"], abs=1e-3)
                assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-3)
    assert checkpoint["model"].keys() == wanted["model"].keys()
    for mine, theirs in (
        (checkpoint["model"], wanted["model"]),
        (checkpoint["ema"]["module"], wanted["ema"]["module"]),
    ):
        assert distance(mine, theirs) < 0.01 * distance(theirs, start)


def test_two_ranks_train_the_same_model_as_one(tmp_path, sparse, one_process):
    run = run_of(tmp_path / "run", sparse, 2, report=True, pictures=True)
    start = run_start(sparse, tmp_path)
    assert_same_run(run, outcome(one_process), start, epochs=[0, 1])
    end = run[0][-1]
    assert end["confirmed"]["val_loss"] == pytest.approx(end["best"]["val_loss"], rel=1e-6)
    # The main rank reads all images for the report.
    page = (tmp_path / "run/out/report.html").read_text()
    assert f"<b>{end['confirmed']['AP']:.3f}</b>" in page
    assert sorted(path.name for path in (tmp_path / "run/out/pictures").iterdir()) == [
        "augmentation_presets.jpg",
        *(f"train_epoch0000_batch{i}.jpg" for i in (0, 1)),
        *(f"val_epoch000{i}.jpg" for i in (0, 1)),
    ]


def test_three_ranks_resume_the_run_of_one(tmp_path, sparse, one_process):
    """A batch of 4 is divided into 1 + 1 + 2 images, often without boxes on one rank."""
    middle = one_process / "out" / "checkpoint0000.pth"
    run = run_of(tmp_path / "run", sparse, 3, resume=str(middle))
    start = load_checkpoint(middle)["model"]
    assert_same_run(run, outcome(one_process), start, epochs=[1])


def test_two_ranks_evaluate_and_the_main_rank_prints_the_metrics(one_process):
    best = one_process / "out" / "best.pth"
    arguments = ["-c", str(one_process / "tiny.yml"), "-r", str(best), "--test-only"]
    results = end_ranks(f"from rtdetrv2.commands.train import main\nmain({arguments!r})")
    assert [code for code, _, _ in results] == [0, 0]
    row = next(line for line in results[0][1].splitlines() if line.startswith("all "))
    assert f"{load_checkpoint(best)['metrics']['AP50']:.3f}" in row
    assert "Validation" not in results[1][1]


def run_start(data, folder):
    """Return the initial weights of the runs."""
    cfg = tiny_config(folder, data)
    seed_everything(cfg.settings.seed)
    return cfg.model.state_dict()


def distance(one, other):
    """Return the L2 distance of two models, with the batch norm statistics."""
    names = [key for key in one if key.endswith((".weight", ".bias", "_mean", "_var"))]
    squares = [(one[name].double() - other[name].double()).square().sum() for name in names]
    return float(torch.stack(squares).sum().sqrt())


ONE_EPOCH = """
import json
from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.misc import distributed
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver.checkpointing import CheckpointWriter
from rtdetrv2_pytorch.src.solver.events import TrainingEvents
import time

class Stop(TrainingEvents):
    def step_finished(self, report):
        if report.global_step == {stop_at}:
            solver.stop("test")

write = CheckpointWriter.save_best
def slow(self, state):
    time.sleep(0.5)  # the other rank must wait for the file
    write(self, state)
CheckpointWriter.save_best = slow

solver = DetSolver(YAMLConfig({path!r}), events=Stop())
result = solver.fit()
distributed.barrier()
distributed.shutdown()
print(json.dumps([result.last_epoch, result.stopped, result.confirmed is not None]))
"""


def test_all_ranks_wait_for_best_pth_before_its_verification(tmp_path, digits):
    path = tiny_file(tmp_path / "tiny.yml", tmp_path / "out", digits, epoches=1)
    assert run_ranks(ONE_EPOCH.format(path=str(path), stop_at=0)) == [[0, None, True]] * 2


class StopAt(TrainingEvents):
    """Requests a stop after a step."""

    def __init__(self, global_step):
        self.global_step = global_step
        self.solver = None

    def step_finished(self, report):
        if report.global_step == self.global_step:
            self.solver.stop("test")


def test_resume_in_an_epoch_with_another_number_of_ranks(tmp_path, sparse, one_process):
    """One rank for a batch, then two ranks, and one rank for the last two batches."""
    path = run_file(tmp_path / "run", sparse)
    last = path.parent / "out" / "last.pth"
    events = StopAt(1)
    events.solver = DetSolver(YAMLConfig(path), events=events)
    assert events.solver.fit().stopped == "test"
    assert place(last) == (0, 1)

    tiny_file(path, last.parent, sparse, **SHARED_RUN, resume=str(last))
    results = run_ranks(ONE_EPOCH.format(path=str(path), stop_at=4))
    assert results == [[0, "test", False], [0, "requested on another rank", False]]
    assert place(last) == (1, 1)

    assert main(["-c", str(path)]) == 0
    run, start = outcome(path.parent), run_start(sparse, tmp_path)
    assert_same_run(run, outcome(one_process), start, epochs=[0, 1])


def place(checkpoint):
    progress = load_checkpoint(checkpoint)["progress"]
    return progress["epoch"], progress["step"]


def test_stop_request_on_one_rank_stops_all(tmp_path, digits):
    path = tiny_file(tmp_path / "tiny.yml", tmp_path / "out", digits)
    results = run_ranks(ONE_EPOCH.format(path=str(path), stop_at=2))
    assert results == [[-1, "test", False], [-1, "requested on another rank", False]]
    assert load_checkpoint(tmp_path / "out" / "last.pth")["progress"]["step"] == 2


def train_with_a_kill(path):
    """Train; before a restart, kill rank 1 in the second epoch."""
    if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        report = det_solver.StepReporter.__call__

        def kill_in_second_epoch(self, progress):
            report(self, progress)
            if (progress.epoch, progress.step) == (1, 1):
                os.kill(os.getpid(), signal.SIGKILL)

        det_solver.StepReporter.__call__ = kill_in_second_epoch
    sys.exit(main(["-c", path]))


def test_run_resumes_after_torchrun_restarts_a_killed_rank(tmp_path, sparse, one_process):
    path = run_file(tmp_path / "run", sparse)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        max_restarts=1,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id="restarts",
        local_addr="localhost",
        logs_specs=DefaultLogsSpecs(log_dir=str(tmp_path / "logs"), redirects=Std.ALL),
    )
    launch_forked(config, train_with_a_kill, str(path))
    (log,) = (tmp_path / "logs").glob("*/attempt_1/0/stderr.log")
    assert "restarted by torchrun: resuming" in log.read_text()
    run = outcome(tmp_path / "run")
    epochs = [e["epoch"] for e in run[0] if e["event"] == "epoch"]
    assert epochs == [0, 1]  # the first epoch was not repeated
    events = [e for e in run[0] if e["event"] != "step" or e["epoch"] == 0]
    steps = [e for e in run[0] if e["event"] == "step" and e["epoch"] == 1]
    assert [e["step"] for e in steps[-3:]] == [0, 1, 2]
    start = run_start(sparse, tmp_path)
    run = ([*events, *steps[-3:]], run[1])
    assert_same_run(run, outcome(one_process), start, epochs=[0, 1])


RANGE_SCRIPT = """
import json, os
from pathlib import Path
from rtdetrv2_pytorch.src.solver import DetSolver
from tests.tiny import tiny_config
chosen = {{"pixel_range": [0, 4095]}} if os.environ["RANK"] == "0" else {{}}
cfg = tiny_config(Path({folder!r}, os.environ["RANK"]), Path({data!r}), **chosen)
DetSolver(cfg)._join_ranks()
print(json.dumps([cfg.settings.pixel_range, cfg.train_dataset.pixel_range]))
"""


def test_ranks_use_the_pixel_range_of_the_main_rank(tmp_path, digits):
    """Only the main rank examines the data, which chooses the range."""
    script = RANGE_SCRIPT.format(folder=str(tmp_path / "out"), data=str(digits))
    assert run_ranks(script) == [[[0, 4095], [0, 4095]]] * 2
