"""docs/accuracy.md is generated from the results."""

from dataclasses import replace

from benchmarks.accuracy import results
from benchmarks.accuracy.page import PAGE, generate
from tests.accuracy_results import point, result


def test_page_is_up_to_date():
    page = generate(results.load_tree(results.FOLDER))
    assert PAGE.read_text() == page, 'run make proof ARGS="--page"'


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
    assert page.index("## All data sets, equal steps") < first < second
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
        "| `transformers` (other trainer) | 1 | 0.200 | 0.600 | 3.0 | 9.0 | -0.240 | too few runs",
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
    assert "Weights coco, 100 epochs, batch size 16, 640 px." in lines
    assert "| weeds | `no-paste` | 1 | 0.400 | 0.600 | 0.500 |  |  |" in lines
