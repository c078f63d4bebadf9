"""Order, interruption, failures and the estimate of an experiment, with runs that do not train."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from benchmarks.accuracy import results
from benchmarks.accuracy.jobs import Experiment, Job, budget_minutes, estimates, left_minutes, plan
from benchmarks.accuracy.processes import RunError
from benchmarks.accuracy.running import run_all, run_one
from tests.accuracy_results import dataset, result


@pytest.fixture
def experiment(tmp_path):
    return Experiment(results=tmp_path / "results", work=tmp_path / "work")


@pytest.fixture
def jobs(tmp_path, experiment):
    sets = [dataset("a", tmp_path), dataset("b", tmp_path)]
    return plan(sets, ["cosine", "no-paste"], [0, 1], experiment)


def run_silently(jobs, experiment, runner):
    output = io.StringIO()
    return run_all(jobs, experiment, Console(file=output, width=200), runner), output.getvalue()


class Runner:
    """Returns results, or raises what `problems` has for a run."""

    def __init__(self, problems=None):
        self.problems, self.calls = problems or {}, []

    def __call__(self, job, experiment, on_progress):
        self.calls.append(job.name)
        on_progress(0.5)
        if job.name in self.problems:
            raise self.problems[job.name]
        return result(job.dataset.name, job.recipe, job.seed)


def test_first_seed_of_everything_first_and_peers_last(tmp_path, experiment):
    jobs = plan(
        [dataset("a", tmp_path)], ["transformers", "cosine", "no-paste"], [0, 1], experiment
    )
    assert [job.name for job in jobs] == [
        *("a_no-paste_s0", "a_cosine_s0", "a_no-paste_s1", "a_cosine_s1"),
        *("a_transformers_s0", "a_transformers_s1"),
    ]


def test_frozen_backbones_need_weights(tmp_path, experiment):
    recipes = ["no-paste", "backbone-frozen-0"]
    assert len(plan([dataset("a", tmp_path)], recipes, [0], experiment)) == 1
    tuned = Experiment(results=tmp_path, work=tmp_path, weights="coco")
    assert len(plan([dataset("a", tmp_path)], recipes, [0], tuned)) == 2


def test_rare_images_are_repeated_only_where_classes_are_rare(tmp_path, experiment):
    sets = [dataset("a", tmp_path), dataset("b", tmp_path, rare=["9"])]
    jobs = plan(sets, ["repeat-rare", "no-paste"], [0], experiment)
    assert [job.name for job in jobs] == ["a_no-paste_s0", "b_no-paste_s0", "b_repeat-rare_s0"]


def test_interrupted_experiment_runs_only_what_is_missing(jobs, experiment):
    first = Runner({"b_no-paste_s0": KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        run_silently(jobs, experiment, first)
    assert first.calls == ["a_no-paste_s0", "a_cosine_s0", "b_no-paste_s0"]
    second = Runner()
    assert run_silently(jobs, experiment, second)[0] == 0
    names = [job.name for job in jobs]
    assert second.calls == names[2:]
    assert sorted(path.stem for path in experiment.results.iterdir()) == sorted(names)
    assert run_silently(jobs, experiment, third := Runner())[0] == 0
    assert third.calls == []


def test_failed_run_is_reported_and_repeated(jobs, experiment):
    runner = Runner({"a_cosine_s0": RunError("exit code 1; end of the log")})
    failed, output = run_silently(jobs, experiment, runner)
    assert (failed, len(runner.calls)) == (1, 8)
    assert "a_cosine_s0 failed: exit code 1; end of the log" in output
    assert "a_no-paste_s0: AP 0.500, AP50 0.800, 4.0 minutes" in output
    assert run_silently(jobs, experiment, again := Runner())[0] == 0
    assert again.calls == ["a_cosine_s0"]


def test_estimate_of_the_time_left(jobs):
    finished = [result("a", "no-paste", 0, minutes=4.0), result("a", "cosine", 0, minutes=5.0)]
    minutes = estimates(jobs, finished)
    assert (minutes["a_no-paste_s1"], minutes["a_cosine_s1"], minutes["b_no-paste_s0"]) == (
        4.0,
        5.0,
        6.0,
    )
    done = {"a_no-paste_s0", "a_cosine_s0"}
    # b: 4 runs of 6 minutes, of which half of the first one is done; a: 4 and 5 minutes.
    assert left_minutes(jobs, minutes, done, 0.5) == 4 * 6 - 3 + 4 + 5
    assert left_minutes(jobs, minutes, {job.name for job in jobs}, 0.0) == 0


def test_peers_get_the_minutes_of_the_reference(tmp_path, experiment):
    data = dataset("a", tmp_path)
    runs = [result("a", "no-paste", 0, minutes=4.0), result("a", "no-paste", 1, minutes=5.0)]
    here = runs[0].machine
    slow = replace(
        result("a", "no-paste", 2, minutes=20.0), machine={**here, "device": "AMD EPYC (AVX2)"}
    )
    runs += [slow, result("a", "cosine", 0, minutes=9.0)]
    assert budget_minutes(data, runs, here) == 4.5
    assert budget_minutes(data, runs, slow.machine) == 20.0
    assert budget_minutes(data, runs, {**here, "threads": "8"}) is None
    job = Job(dataset=data, recipe="transformers", seed=0)
    with pytest.raises(RunError, match="run 'no-paste' first"):
        run_one(job, experiment, lambda share: None)
    assert results.load_all(experiment.results) == []
