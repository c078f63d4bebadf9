"""docs/accuracy.md is generated from the results."""

from dataclasses import replace
from statistics import fmean

from benchmarks.accuracy import results
from benchmarks.accuracy.page import PAGE, generate
from benchmarks.accuracy.recipes import REFERENCE
from benchmarks.accuracy.results import ROOT, by_seed, comparable_times
from tests.accuracy_results import point, result


def test_page_is_up_to_date():
    page = generate(results.load_tree(results.FOLDER))
    assert PAGE.read_text() == page, 'run make proof ARGS="--page"'


def test_readme_and_changelog_have_the_measured_numbers():
    found = results.load_tree(results.FOLDER)[""]
    bccd, *others = comparable_times(found, "bccd", REFERENCE)[0], "libreyolo", "transformers"
    ours = by_seed(bccd, "bccd", REFERENCE).values()
    minutes = fmean(run.minutes for run in ours)
    readme = " ".join((ROOT / "README.md").read_text().split())
    text = f"AP {fmean(run.best['AP'] for run in ours):.2f} on BCCD from random weights in "
    assert f"{text}{minutes:.1f} minutes on one CPU core" in readme
    for name in others:
        (run,) = by_seed(bccd, "bccd", name).values()
        assert f"`{name}` {run.best_within(minutes, 'AP'):.2f}" in readme
    before, now = (
        fmean(run.best["AP"] for run in by_seed(found, "digits", name).values())
        for name in (REFERENCE, "paste-balanced")
    )
    assert f"from {before:.2f} to {now:.2f}" in readme
    changes = " ".join((ROOT / "CHANGELOG.md").read_text().split())
    assert f"from {before:.3f} to {now:.3f}" in changes


def runs(dataset, recipe, aps, **values):
    return [result(dataset, recipe, seed, ap=ap, **values) for seed, ap in enumerate(aps)]


RESULTS = [
    *runs("bccd", "no-paste", [0.44, 0.46, 0.48]),
    *runs("bccd", "cosine", [0.50, 0.52, 0.54]),
    *runs("bccd", "lr-1e-3", [0.47, 0.49, 0.51]),
    *runs("bccd", "ema-2", [0.38, 0.40, 0.42]),
    *runs("bccd", "flat-80", [0.6]),
    *runs("digits", "no-paste", [0.44, 0.46, 0.48]),
    *runs("digits", "cosine", [0.46, 0.48, 0.50]),
    result(
        "bccd",
        "transformers",
        kind="peer",
        curve=[point(3.0, 0.1, 0.55), point(4.1, 0.2, 0.6, epoch=2), point(9.0, 0.9, 0.95)],
    ),
]


def test_tables():
    page = generate({"": RESULTS})
    first, second = page.index("## bccd"), page.index("## digits")
    assert page.index("## Several data sets, equal steps") < first < second
    # Intervals: tests/unit/benchmarks/test_spread.py.
    lines = [line.removesuffix(" |") for line in page.splitlines()]
    equal = "0.800 ± 0.000 | 4.0"  # AP50 and minutes
    for line in (
        "| `cosine` | 2 | 6 | +0.040 [+0.013, +0.067] | **better**",
        f"| `no-paste` (default) | 3 | 0.460 ± 0.020 | {equal} |  | ",
        f"| `cosine` | 3 | 0.520 ± 0.020 | {equal} | +0.060 [+0.015, +0.105] | **better**",
        f"| `lr-1e-3` | 3 | 0.490 ± 0.020 | {equal} | +0.030 [-0.015, +0.075] | no difference",
        f"| `ema-2` | 3 | 0.400 ± 0.020 | {equal} | -0.060 [-0.105, -0.015] | **worse**",
        "| `flat-80` | 1 | 0.600 | 0.800 | 4.0 | +0.160 | too few runs",
        # Equal minutes: the evaluation at 9 minutes does not count, that at 4.1 does.
        "| `transformers` (other trainer) | 1 | 0.200 | 0.600 | 3.0 | 9.0 | -0.260 | too few runs",
        f"| `no-paste` (default) | 3 | 0.460 ± 0.020 | {equal} | 4.0 |  | ",
    ):
        assert line in lines
    assert "RT-DETRv2-S, 320 px, 10 epochs, batch size 4: 510 steps." in page


def test_times_are_compared_with_equal_threads():
    slow = result(recipe="cosine", seed=0, ap=0.6)
    slow = replace(slow, machine={**slow.machine, "threads": "1"})
    page = generate({"": [result(), slow]})
    steps, minutes = page.split("Within 4.0 minutes")
    assert "on AMD EPYC, 2 cores, 2 threads" in minutes
    assert "| `cosine` | 1 | 0.600" in steps
    assert "| `no-paste` (default) | 1 | 0.500" in minutes
    assert "`cosine` |" not in minutes.partition("## Recipes")[0]


def test_each_kind_of_machine_with_the_reference_has_times():
    fast, slow = result(seed=1, minutes=4.0), result(seed=0, minutes=16.0)
    peer = result(recipe="transformers", kind="peer", ap=0.1, minutes=15.0)
    machine = {**slow.machine, "device": "AMD EPYC (AVX2)"}
    slow, peer = (replace(each, machine=machine) for each in (slow, peer))
    assert "Within 16.0 minutes" not in generate({"": [fast, result(seed=2), slow]})
    page = generate({"": [fast, result(seed=2), slow, peer]})
    first, second = page.split("Within 4.0 minutes")[1].split("Within 16.0 minutes")
    assert "on AMD EPYC, 2 cores, 2 threads:" in first
    assert "`transformers`" not in first
    assert "on AMD EPYC (AVX2), 2 cores, 2 threads:" in second
    assert "| `transformers` (other trainer) | 1 | 0.100 |" in second


def test_present_and_earlier_default():
    runs_of = {
        "mirrored": [0.50, 0.52, 0.54],
        "no-paste": [0.56, 0.58, 0.60],
        "paste-balanced": [0.60, 0.62, 0.64],
    }
    found = [each for name, aps in runs_of.items() for each in runs("digits", name, aps)]
    found[-1] = replace(found[-1], run={"precision": "bfloat16"})
    lines = generate({"": found + runs("bccd", "no-paste", [0.5, 0.6])}).splitlines()
    means = "0.520 ± 0.020 (3, float32) | 0.620 ± 0.020 (3, bfloat16 and float32)"
    change = "+0.100 [+0.055, +0.145] | **better**"
    assert f"| digits | `mirrored` | {means} | {change} |" in lines
    assert not any(line.startswith("| bccd | `no-paste`") for line in lines)  # unchanged


def test_comparison_with_another_precision_is_named():
    found = [
        replace(each, run={"precision": precision})
        for recipe, precisions in {
            "no-paste": ["bfloat16", "bfloat16"],
            "cosine": ["bfloat16", "float32"],
            "mirrored": ["bfloat16", "bfloat16"],
        }.items()
        for each, precision in zip(runs("digits", recipe, [0.4, 0.5]), precisions, strict=True)
    ]
    assert "In another precision than `no-paste`: `cosine` (seed 1).\n" in generate({"": found})
    same = [each for each in found if each.recipe != "cosine"]
    assert "In another precision" not in generate({"": same})


def test_machines_without_the_default_and_recipes_without_runs_are_named():
    page = generate({"": runs("digits", "no-paste", [0.4])})
    assert "`paste-balanced` (default) has not run on such a machine." in page
    missing = next(
        line for line in page.splitlines() if line.startswith("Defined, without a result")
    )
    assert "`paste-balanced`" in missing
    assert "`no-paste`" not in missing
    page = generate(
        {"": runs("digits", "no-paste", [0.4]) + runs("digits", "paste-balanced", [0.4])}
    )
    assert "has not run on such a machine" not in page


def test_runs_of_other_trainers_are_compared_with_all_runs():
    peer = result("bccd", "transformers", 7, ap=0.1, kind="peer")
    page = generate({"": [*runs("bccd", "no-paste", [0.4, 0.6]), peer]})
    assert "| `transformers` (other trainer) | 1 | 0.100 | 0.800 | 4.0 | 4.0 | -0.400 |" in page


def test_a_value_that_was_not_reached():
    slow = [point(4.0, 0.3, 0.5)]
    found = [result(seed=0), result(seed=1, curve=slow), result("b", curve=slow)]
    page = generate({"": found})
    assert "| 4.0 | 4.0 (1 of 2 runs) |" in page
    assert "| 4.0 | never |" in page


def test_page_without_results():
    assert "No runs are finished yet." in generate({})


def test_protocol_has_a_table_of_its_own():
    settings = {"weights": "coco", "epochs": 100, "batch": 16, "size": 640}
    best = {"AP": 0.4, "AP50": 0.6, "AP_max_detections": 0.5}
    found = [replace(result("weeds"), settings=settings, best=best)]
    lines = generate({"rf100vl": found}).splitlines()
    assert "## rf100vl" in lines
    assert "Weights: coco." in lines
    about = "100 epochs, batch 16, 640 px"
    assert f"| weeds | `no-paste` | {about} | 1 | 0.400 | 0.600 | 0.500 |  |  |" in lines
    assert not any(line.startswith("| mean of") for line in lines)


def test_protocol_has_means_over_the_data_sets():
    """A data set counts the same with one seed or two."""
    settings = {"weights": "coco", "epochs": 100, "batch": 16, "size": 640}
    found = [
        replace(result(name, recipe, seed), settings=settings, best={"AP": ap, "AP50": 2 * ap})
        for name, recipe, seed, ap in (
            *(("weeds", "no-paste", 0, 0.1), ("weeds", "no-paste", 1, 0.3)),
            *(("coral", "no-paste", 0, 0.4), ("coral", "cosine", 0, 0.5)),
        )
    ]
    lines = generate({"rf100vl": found}).splitlines()
    assert "| mean of 2 | `no-paste` |  | 3 | 0.300 | 0.600 |  |  |  |" in lines
    assert not any(line.startswith("| mean of 2 | `cosine`") for line in lines)
