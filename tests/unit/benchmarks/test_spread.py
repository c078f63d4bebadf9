"""Spread and differences against numbers computed by hand."""

import math

import pytest

from benchmarks.accuracy.spread import Spread, difference, independent_difference, mean_difference

REFERENCE = {0: 0.44, 1: 0.46, 2: 0.48}


def shifted(by):
    return {seed: value + by for seed, value in REFERENCE.items()}


def test_spread():
    spread = Spread.of([0.44, 0.46, 0.48])
    assert (spread.mean, spread.deviation, spread.count) == pytest.approx((0.46, 0.02, 3))
    assert math.isnan(Spread.of([0.5]).deviation)


@pytest.mark.parametrize(
    ("shift", "verdict"), [(0.06, "better"), (-0.06, "worse"), (0.04, "no difference")]
)
def test_difference(shift, verdict):
    found = difference(shifted(shift), REFERENCE)
    # Standard error sqrt(2 * 0.02**2 / 3) = 0.01633, 4 degrees of freedom, t = 2.7764.
    assert (found.mean, found.half_width) == pytest.approx((shift, 0.04534), abs=1e-5)
    assert (found.verdict, found.seeds) == (verdict, 3)


def test_unequal_variances_have_fewer_degrees_of_freedom():
    constant = {0: 0.6, 1: 0.6, 2: 0.6}
    # Only the reference varies: standard error 0.02 / sqrt(3), 2 degrees of freedom, t = 4.3027.
    assert difference(constant, REFERENCE).half_width == pytest.approx(0.04968, abs=1e-5)


def test_only_common_seeds_count():
    found = difference({1: 0.56, 2: 0.58, 7: 0.0}, REFERENCE)
    assert (found.mean, found.seeds) == (pytest.approx(0.1), 2)
    assert difference({7: 0.5}, REFERENCE) is None


def test_runs_without_common_seeds():
    found = independent_difference([0.40, 0.42], [0.44, 0.46, 0.48])
    # Variances of the means 1e-4 and 1.3333e-4: standard error 0.015275, 2.8824 degrees of
    # freedom by Satterthwaite, t = 3.2572.
    assert (found.mean, found.half_width) == pytest.approx((-0.05, 0.04975), abs=1e-5)
    assert (found.verdict, found.seeds) == ("worse", 2)
    assert independent_difference([0.1], [0.2, 0.3]).verdict == "too few runs"
    assert independent_difference([], [0.2]) is None


def test_one_seed_gives_no_verdict():
    found = difference({0: 0.9}, REFERENCE)
    assert (found.mean, found.verdict) == (pytest.approx(0.46), "too few runs")


def test_equal_results_are_no_difference():
    same = {0: 0.5, 1: 0.5}
    assert difference(same, same).verdict == "no difference"
    assert difference({0: 0.6, 1: 0.6}, same).verdict == "better"


def test_mean_over_datasets():
    found = mean_difference([(shifted(0.06), REFERENCE), (shifted(0.02), REFERENCE)])
    # Standard error sqrt(4 * 0.02**2 / 3) / 2 = 0.011547, 8 degrees of freedom, t = 2.3060.
    assert (found.mean, found.half_width) == pytest.approx((0.04, 0.02663), abs=1e-5)
    assert (found.verdict, found.seeds) == ("better", 6)
