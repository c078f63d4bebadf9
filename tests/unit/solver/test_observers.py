"""Files and log lines of a training."""

import dataclasses
import inspect
import json
import math
import resource
import threading
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from rtdetrv2_pytorch.src.data.metrics.evaluator import (
    STAT_NAMES,
    ClassMetrics,
    Evaluation,
)
from rtdetrv2_pytorch.src.data.metrics.operating_point import OperatingPoint
from rtdetrv2_pytorch.src.misc.text import without_non_finite
from rtdetrv2_pytorch.src.solver.events import (
    EpochReport,
    FanOut,
    FitResult,
    StepReport,
    TrainingEvents,
)
from rtdetrv2_pytorch.src.solver.observers import (
    JsonLog,
    LogLines,
    TensorBoard,
    epoch_values,
    metrics_table,
)

POINT = OperatingPoint(threshold=0.4, f1=0.5, precision=0.6, recall=0.43)


def evaluation():
    return Evaluation(
        stats=dict.fromkeys(STAT_NAMES, 0.25),
        classes=[
            ClassMetrics("cat", 0.3, 0.5, 7, POINT),
            ClassMetrics("a long name", math.nan, math.nan, 0, POINT),
        ],
        best=POINT,
        losses={"loss_vfl": 1.0, "loss_bbox": 0.5},
        num_images=4,
    )


def step_report(**values):
    defaults = {
        "epoch": 0, "step": 1, "num_steps": 10, "global_step": 2, "loss": 3.5,
        "losses": {"loss_vfl": 3.5}, "lr": 1e-4, "images_per_s": 5.0, "data_s": 0.01,
        "step_s": 0.5, "eta_s": 60.0, "grad_norm": math.inf, "is_fresh": True, "is_logged": True,
    }  # fmt: skip
    return StepReport(**(defaults | values))


def epoch_report():
    return EpochReport(
        epoch=1, train_loss=2.0, train_losses={"loss_vfl": 2.0}, evaluation=evaluation(),
        is_best=True, best_epoch=1, best_ap=0.25, lr=1e-4, train_s=10.0, eval_s=2.0, data_s=0.01,
        step_s=0.5, images_per_s=5.0, skipped_steps=1, skipped_images=("broken.jpg",),
        time_shares={"data": 0.25, "forward": 0.75}, bottleneck="input bound: 2 more workers",
        eta_s=30.0,
    )  # fmt: skip


def read(path: Path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_json_log_writes_one_object_per_line_without_nan(tmp_path):
    log = JsonLog(tmp_path / "log.jsonl")
    log.step_finished(step_report())
    log.step_finished(step_report(is_logged=False))
    log.epoch_finished(epoch_report())
    log.train_finished(FitResult(1, evaluation(), None, 1, None, {"best": Path("x/best.pth")}))
    step, epoch, end = read(tmp_path / "log.jsonl")
    assert (step["event"], step["loss"], step["grad_norm"]) == ("step", 3.5, None)
    assert (epoch["event"], epoch["AP"], epoch["val_loss"]) == ("epoch", 0.25, 1.5)
    assert epoch["per_class"]["cat"]["AP50"] == 0.5
    assert epoch["time_shares"] == {"data": 0.25, "forward": 0.75}
    assert epoch["verdict"] == "input bound: 2 more workers"
    assert epoch["per_class"]["a long name"]["AP"] is None
    assert (end["event"], end["best_epoch"]) == ("end", 1)
    assert end["checkpoints"] == {"best": "best.pth"}


def test_resumed_run_appends_to_the_log(tmp_path):
    for _ in range(2):
        JsonLog(tmp_path / "log.jsonl").step_finished(step_report())
    assert len(read(tmp_path / "log.jsonl")) == 2


def test_partial_last_line_does_not_damage_the_next_one(tmp_path):
    path = tmp_path / "log.jsonl"
    whole = json.dumps({"event": "epoch", "epoch": 0})
    path.write_text(f'{whole}\n{{"event": "epoch", "epo')
    log = JsonLog(path)
    log.step_finished(step_report())
    log.step_finished(step_report(step=2))
    first, partial, *steps = path.read_text().splitlines()
    assert (first, partial) == (whole, '{"event": "epoch", "epo')
    assert [json.loads(line)["step"] for line in steps] == [1, 2]


def test_log_lines_are_key_value_pairs(caplog):
    with caplog.at_level("INFO"):
        LogLines().step_finished(step_report())
        LogLines().step_finished(step_report(is_logged=False))
        LogLines().epoch_finished(epoch_report())
    assert "epoch=1 step=2/10 loss=3.5000 lr=1.00e-04" in caplog.text
    assert "epoch=2 train_loss=2.0000 val_loss=1.5000 AP=0.2500" in caplog.text
    assert "best_epoch=2 train_s=10.0 eval_s=2.0 eta_s=30" in caplog.text
    assert 'data=25% forward=75% verdict="input bound: 2 more workers"' in caplog.text
    assert "epoch=2 image not used: broken.jpg" in caplog.text
    assert len(caplog.records) == 3


def test_epoch_without_evaluation_has_no_metrics(tmp_path, caplog):
    report = dataclasses.replace(epoch_report(), evaluation=None, is_best=False, eval_s=0.0)
    with caplog.at_level("INFO"):
        LogLines().epoch_finished(report)
    assert "epoch=2 train_loss=2.0000 train_s=10.0 eval_s=0.0 eta_s=30" in caplog.text
    JsonLog(tmp_path / "log.jsonl").epoch_finished(report)
    (line,) = read(tmp_path / "log.jsonl")
    assert line["train_loss"] == 2.0 and "AP" not in line and "val_loss" not in line
    assert epoch_values(report) == {"time/data": 0.25, "time/forward": 0.75}


def test_metrics_table_is_aligned():
    lines = metrics_table(evaluation())
    assert lines[1] == "cat              7  0.300  0.500      0.400  0.500"
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [(math.nan, None), ([1.0, math.inf], [1.0, None]), ({"a": (-math.inf, 2)}, {"a": [None, 2]})],
)
def test_non_finite_numbers_become_null(value, expected):
    assert without_non_finite(value) == expected


class Follower:
    """Records every event."""

    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def __getattr__(self, event):
        return lambda *args: self.calls.append((self.name, event, args))


@pytest.mark.parametrize("event", [name for name in vars(TrainingEvents) if name[0] != "_"])
def test_fan_out_calls_all_followers_in_order(event):
    calls = []
    _, *args = inspect.signature(getattr(TrainingEvents, event)).parameters
    getattr(FanOut([Follower("a", calls), Follower("b", calls)]), event)(*args)
    assert calls == [("a", event, tuple(args)), ("b", event, tuple(args))]


def test_unwritable_log_warns_once(tmp_path, caplog):
    (tmp_path / "log.jsonl").mkdir()
    log = JsonLog(tmp_path / "log.jsonl")
    log.step_finished(step_report())
    log.epoch_finished(epoch_report())
    assert caplog.text.count("log.jsonl: cannot be written") == 1


def test_unwritable_tensorboard_warns_once(tmp_path, caplog, monkeypatch):
    """The file of a real writer may not grow: its thread ends, and all later calls fail."""
    monkeypatch.setattr(threading, "excepthook", lambda args: None)  # of the writer thread
    board = TensorBoard(SummaryWriter(str(tmp_path)))
    board.step_finished(step_report())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        for _ in range(3):
            board.epoch_finished(epoch_report())
        board.step_finished(step_report())
        board.train_finished(FitResult(1, evaluation(), None, 1, None))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caplog.text.count("TensorBoard is disabled, training continues") == 1


def test_tensorboard_contains_the_reported_values(tmp_path):
    board = TensorBoard(SummaryWriter(str(tmp_path)))
    board.step_finished(step_report())
    board.epoch_finished(epoch_report())
    board.train_finished(FitResult(1, evaluation(), None, 1, None))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(2, 3.5)]
    assert [(e.step, e.value) for e in events.Scalars("val/AP")] == [(2, 0.25)]
    assert events.Scalars("val_AP/cat")[0].value == pytest.approx(0.3)
    assert [(e.step, e.value) for e in events.Scalars("time/forward")] == [(2, 0.75)]
    [text] = events.Tensors("time/verdict/text_summary")
    assert text.tensor_proto.string_val == [b"input bound: 2 more workers"]
    assert "val_AP/a long name" not in events.Tags()["scalars"]  # NaN


def test_tensorboard_accepts_custom_area_ranges(tmp_path):
    """With custom `CocoEvaluator.ranges` there is no AP_small."""
    stats = {"AP": 0.5, "AP50": 0.6, "AP75": 0.4, "AP_tiny": 0.125}
    report = epoch_report()
    board = TensorBoard(SummaryWriter(str(tmp_path)))
    board.epoch_finished(
        dataclasses.replace(report, evaluation=dataclasses.replace(report.evaluation, stats=stats))
    )
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Scalars("val/AP_tiny")[0].value == 0.125
    assert "val/AP_small" not in events.Tags()["scalars"]
