"""Result files, and what is read from a curve."""

import math
from dataclasses import replace

import pytest

from benchmarks.accuracy.results import (
    ROOT,
    Point,
    comparable_times,
    load,
    load_all,
    load_tree,
    save,
)
from tests.accuracy_results import point, result

CURVE = [point(1.0, 0.2, 0.4), point(2.0, 0.4, 0.6), point(3.0, 0.3, 0.9)]


def test_best_within_a_time():
    run = result(curve=CURVE)
    assert [run.best_within(t, "AP") for t in (0.5, 1.0, 1.9, 3.0)] == [0.0, 0.2, 0.2, 0.4]
    assert run.best_within(1.95, "AP50") == 0.6  # 5 % tolerance


def test_minutes_to_ap50():
    run = result(curve=CURVE)
    assert [run.minutes_to(target) for target in (0.4, 0.5, 0.95)] == [1.0, 2.0, None]


def test_point_of_metrics_without_boxes_of_a_class():
    classes = {"a": {"AP": 0.12345}, "b": {"AP": math.nan}, "c": {"AP": None}}
    metrics = {"AP": 0.33333, "AP50": 0.5, "AR_1": 0.4, "val_loss": 9.0, "per_class": classes}
    found = Point.of(metrics, minutes=1.23456, epoch=3)
    assert (found.AP, found.minutes, found.per_class) == (0.3333, 1.235, {"a": 0.1235})
    assert Point.summary(metrics) == {"AP": 0.3333, "AP50": 0.5, "AR_1": 0.4}


def test_saved_results_are_loaded(tmp_path):
    for seed in (1, 0):
        save(result(seed=seed), tmp_path / "folder" / f"bccd_no-paste_s{seed}.json")
    assert load_all(tmp_path / "folder") == [result(seed=0), result(seed=1)]
    assert load_all(tmp_path / "missing") == []
    save(result(), tmp_path / "x.json")
    assert load_tree(tmp_path) == {"": [result()], "folder": [result(seed=0), result(seed=1)]}


def test_saved_paths_are_relative(tmp_path):
    paths = (f"{ROOT}/output/a.log", f"{ROOT.parent}/shared/data/b")
    save(replace(result(), command=paths), tmp_path / "x.json")
    assert load(tmp_path / "x.json").command == ["output/a.log", "../shared/data/b"]


@pytest.mark.parametrize(
    ("key", "a", "b"), [("threads", "2", "1"), ("device", "EPYC (AVX2)", "EPYC (AVX512, bfloat16)")]
)
def test_times_are_compared_on_one_kind_of_machine(key, a, b):
    def run(seed, value, recipe="no-paste"):
        machine = {**result().machine, key: value}
        return replace(result(seed=seed), recipe=recipe, machine=machine)

    two, one, other = run(0, a), run(1, b), run(0, b, "cosine")
    # A tie, decided by the runs of all recipes; then two runs against one.
    assert comparable_times([two, one, other], "bccd", "no-paste") == [[one, other], [two]]
    third = run(2, a)
    everything = [two, one, other, third]
    assert comparable_times(everything, "bccd", "no-paste") == [[two, third], [one, other]]
    assert comparable_times([other], "bccd", "no-paste") == []
    assert comparable_times([one], "digits", "no-paste") == []


@pytest.mark.parametrize("text", ["", "[]", '{"curve": []}'])
def test_damaged_result(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"x\.json: not a result .* delete it"):
        load(path)
