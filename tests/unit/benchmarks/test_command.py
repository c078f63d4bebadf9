"""Options of the accuracy benchmark."""

import re
from dataclasses import replace

import pytest

from benchmarks.accuracy import command, page, results, running
from benchmarks.accuracy.datasets import DATASETS, rf100vl
from benchmarks.accuracy.jobs import Job
from benchmarks.accuracy.peers import PEERS
from benchmarks.accuracy.recipes import RECIPES
from tests.accuracy_results import dataset, point, result


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """Two data sets, of which one is missing."""
    found = {"a": dataset("a", tmp_path), "b": dataset("b", tmp_path / "missing")}
    monkeypatch.setattr(command, "DATASETS", found)


def options(*arguments):
    return command._experiment(command._parser().parse_args(arguments))


def test_list_skips_missing_datasets_with_the_reason(sets, tmp_path, capsys):
    path = tmp_path / "results"
    results.save(result("a", "no-paste", 0, minutes=5.0), path / "a_no-paste_s0.json")
    arguments = ["--list", "--only", "no-paste", "cosine", "--seeds", "0", "1"]
    assert command.main([*arguments, "--results", str(path)]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "b skipped" in output
    assert "missing:nosuchfolder" in output.replace(" ", "")  # lines of the terminal are wrapped
    assert "1 of 4 runs finished, about 0.2 hours left" in output  # 3 runs of 5 minutes
    assert "b_no-paste_s0" not in output


def test_runs_what_is_missing(sets, tmp_path, monkeypatch, capsys):
    path, calls = tmp_path / "results", []

    def run(job, experiment, on_progress):
        calls.append(job.name)
        if job.recipe == "flat-80":
            raise KeyboardInterrupt
        return result(job.dataset.name, job.recipe, job.seed)

    monkeypatch.setattr(running.ours, "run", run)
    places = ["--seeds", "0", "--results", str(path), "--work", str(tmp_path / "work")]
    assert command.main(["--only", "no-paste", "cosine", *places]) == 0
    assert command.main(["--only", "no-paste", "cosine", "flat-80", *places]) == 130
    assert "Run the same command again to resume" in capsys.readouterr().out
    assert calls == ["a_no-paste_s0", "a_cosine_s0", "a_flat-80_s0"]
    assert sorted(each.name for each in path.iterdir()) == [
        "a_cosine_s0.json",
        "a_no-paste_s0.json",
    ]


@pytest.mark.parametrize("name", ["toddy", "no-paste+toddy"])
def test_unknown_names_are_listed(sets, capsys, name):
    with pytest.raises(SystemExit):
        command.main(["--only", name])
    message = " ".join(capsys.readouterr().err.split())
    assert f"--only {name}: unknown recipe toddy; there are no-paste, lr-1e-4," in message
    assert "data sets a, b; trainers transformers," in message


def test_other_lengths_have_names_of_their_own():
    datasets, experiment = options("--epochs", "20", "--size", "256")
    assert datasets["bccd"].name == "bccd-20e-256px"
    assert (datasets["bccd"].epochs, datasets["bccd"].size) == (20, 256)
    assert datasets["bccd"].minutes == pytest.approx(2 * DATASETS["bccd"].minutes)
    assert experiment.results == results.FOLDER


def test_weights_and_devices_have_folders_of_their_own():
    """Also the unfinished runs: another experiment must not resume them."""
    _, cpu = options()
    _, cuda = options("--weights", "coco", "--device", "cuda:1")
    job = Job(dataset=DATASETS["digits"], recipe="no-paste", seed=0)
    assert cuda.results == results.FOLDER / "cuda-coco"
    assert job.folder(cuda) == cuda.work / "runs" / "cuda-coco" / "digits_no-paste_s0"
    assert job.folder(cpu) == cpu.work / "runs" / "cpu-none" / "digits_no-paste_s0"
    places = {
        job.folder(options("--weights", weights, "--results", "/tmp/accuracy")[1])
        for weights in ("none", "coco", "a/best.pth", "b/best.pth")
    }
    assert len(places) == 4
    names = {options("--weights", f"{name}/best.pth")[1].results.name for name in "ab"}
    assert len(names) == 2
    assert all(re.fullmatch(r"cpu-best-[0-9a-f]{6}", name) for name in names)


def jobs_of(*arguments):
    args = command._parser().parse_args(["--seeds", "0", *arguments])
    return [job.name for job in command._jobs(args, *command._experiment(args), None)]


def test_defaults_are_compared_unless_recipes_are_chosen(monkeypatch):
    sets = {name: DATASETS[name] for name in ("digits", "rare-digits")}
    monkeypatch.setattr(command, "DATASETS", sets)
    digits = ["digits_no-paste_s0", "digits_paste-balanced_s0", "digits_mirrored_s0"]
    assert jobs_of("--only", "digits") == digits
    assert jobs_of() == [*digits, *(f"rare-{name}" for name in digits)]
    peers = [f"digits_{name}_s0" for name in PEERS]
    assert jobs_of("--only", "digits", "--peers") == [*digits, *peers]


@pytest.mark.parametrize("name", ["digits", "cards"])
def test_all_recipes_contain_the_defaults(name, monkeypatch):
    data = replace(DATASETS[name], is_generated=True)  # its files are not needed
    monkeypatch.setattr(command, "DATASETS", {name: data})
    usable = [key for key, r in RECIPES.items() if not (r.needs_weights or r.repeats_rare)]
    wanted = {f"{name}_{recipe}_s0" for recipe in (*usable, data.default, data.earlier)}
    assert set(jobs_of("--all")) == wanted
    with pytest.raises(ValueError, match="--all runs all recipes"):
        jobs_of("--all", "--only", "cosine")


def test_runs_with_weights_have_the_reference_only(monkeypatch):
    monkeypatch.setattr(command, "DATASETS", {"digits": DATASETS["digits"]})
    assert jobs_of("--weights", "coco", "--device", "cuda") == ["digits_no-paste_s0"]


def test_an_unchanged_default_runs_once(monkeypatch):
    bccd = replace(DATASETS["bccd"], is_generated=True)  # its files are not needed
    monkeypatch.setattr(command, "DATASETS", {"bccd": bccd})
    assert jobs_of() == ["bccd_no-paste_s0"]


@pytest.mark.parametrize("chosen", [["--peers"], ["--only", "libreyolo"]])
def test_other_trainers_have_no_weights(chosen):
    with pytest.raises(ValueError, match="start from random weights"):
        options("--weights", "coco", *chosen)


def test_rf100vl_protocol(tmp_path):
    for name in ("second", "first"):
        (tmp_path / name).mkdir()
    datasets, experiment = options("--protocol", "rf100vl", str(tmp_path), "--device", "cuda")
    assert list(datasets) == ["first", "second"]
    for each in datasets.values():
        assert (each.epochs, each.batch, each.size) == (100, 16, 640)
    assert (experiment.weights, experiment.max_detections) == ("coco", 500)
    assert experiment.results == results.FOLDER / "rf100vl-cuda-coco"
    arguments = ["--seeds", "0", "--protocol", "rf100vl", str(tmp_path)]
    jobs = command._jobs(command._parser().parse_args(arguments), datasets, experiment, None)
    assert [job.name for job in jobs] == ["first_no-paste_s0", "second_no-paste_s0"]


def test_rf100vl_needs_folders(tmp_path):
    with pytest.raises(ValueError, match="contains no folders"):
        rf100vl(tmp_path)
    with pytest.raises(ValueError, match="--protocol coco: unknown; there is rf100vl"):
        options("--protocol", "coco", str(tmp_path))


def test_page_is_written(sets, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(page, "PAGE", tmp_path / "accuracy.md")
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    results.save(result(ap=0.123), tmp_path / "results" / "bccd_no-paste_s0.json")
    assert command.main(["--page"]) == 0
    text = (tmp_path / "accuracy.md").read_text()
    assert "| `no-paste` (default) | 1 | 0.123 |" in text
    assert "on AMD EPYC, 2 cores, 2 threads; torch 2.10.0" in text


def test_page_has_no_minutes_of_another_kind_of_machine():
    runs = [result(seed=seed, ap=0.5, minutes=4.0) for seed in (0, 1)]
    slow = {**runs[0].machine, "device": "AMD EPYC (AVX2)"}
    runs += [replace(result(seed=2, ap=0.8, minutes=16.0), machine=slow)]
    runs += [replace(result(recipe="cosine", ap=0.7, minutes=16.0), machine=slow)]
    equal_steps, equal_minutes = page.generate({"": runs}).split("Within 4.0 minutes")
    assert "| `no-paste` (default) | 3 | 0.600 ± 0.173 | 0.800 ± 0.000 | 4.0 |" in equal_steps
    assert "| `cosine` | 1 | 0.700 | 0.800 |  |" in equal_steps
    assert "on AMD EPYC, 2 cores, 2 threads:" in equal_minutes
    assert "| `no-paste` (default) | 2 | 0.500" in equal_minutes
    assert "0.700" not in equal_minutes.split("Within 16.0 minutes")[0]


def test_page_shows_rare_classes_in_the_best_epoch():
    def curve(first, last):  # 7, 8 and 9 are the rare digits
        rare = {"7": last, "8": last, "9": last - 0.3, "1": 0.9}
        return [point(1, 0.2, **{"7": first}), point(2, 0.5, epoch=2, **rare)]

    runs = [
        result("rare-digits", recipe, seed, curve=curve(0.9, ap + seed / 100))
        for recipe, ap in (("no-paste", 0.4), ("repeat-rare", 0.5))
        for seed in (0, 1)
    ]
    text = page.generate({"": runs})
    assert "The rare classes 7, 8, 9 alone:" in text
    # Means of the seeds: 0.4 - 0.1 + 0.005 and 0.1 more.
    assert "| `no-paste` | 2 | 0.305 ± 0.007 |  |  |" in text
    assert "| `repeat-rare` | 2 | 0.405 ± 0.007 | +0.100 [" in text
