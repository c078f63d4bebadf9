"""Reading logs of interrupted and resumed runs, and damaged logs."""

import json

from rtdetrv2_pytorch.src.report.run_log import read_run_log


def write(path, *events):
    lines = [each if isinstance(each, str) else json.dumps(each) for each in events]
    path.write_text("\n".join(lines) + "\n")
    return read_run_log(path)


def plan(first):
    return {"event": "plan", "first_epoch": first, "epochs": 3}


def epoch(number, ap, **more):
    return {"event": "epoch", "epoch": number, "AP": ap, **more}


def step(number):
    return {"event": "step", "epoch": number, "step": 0}


def test_repeated_epoch_counts_once(tmp_path):
    log = write(
        tmp_path / "log.jsonl",
        plan(0), step(0), epoch(0, 0.1), step(1), epoch(1, 0.9), step(2),
        plan(1), step(1), epoch(1, 0.2), {"event": "end", "stopped": None},
    )  # fmt: skip
    assert log.numbers("AP") == [(0, 0.1), (1, 0.2)]
    assert [s["epoch"] for s in log.steps] == [0, 1]
    assert log.end is not None
    assert log.best["epoch"] == 1


def test_new_run_in_the_same_directory_replaces_the_old_one(tmp_path):
    end = {"event": "end"}
    log = write(tmp_path / "log.jsonl", plan(0), epoch(0, 0.9), end, plan(0), epoch(0, 0.3))
    assert log.numbers("AP") == [(0, 0.3)]
    assert log.end is None


def test_incomplete_and_malformed_lines_are_skipped(tmp_path):
    torn = '{"event": "epoch", "epo'
    log = write(tmp_path / "log.jsonl", plan(0), torn, "[1]", "7", '{"event": 5}', epoch(0, None))
    assert log.numbers("AP") == []
    assert len(log.epochs) == 1
    assert log.best is None


def test_nested_values(tmp_path):
    log = write(tmp_path / "log.jsonl", plan(0), epoch(0, 0.1, train_losses={"loss_vfl": 2}))
    assert log.numbers("train_losses", "loss_vfl") == [(0, 2.0)]
    assert log.numbers("train_losses", "other") == []


def test_missing_log_is_empty(tmp_path):
    log = read_run_log(tmp_path / "none.jsonl")
    assert (log.plan, log.epochs, log.end) == ({}, [], None)
