"""Mean, spread and the difference between two recipes over seeds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats

CONFIDENCE = 0.95

Verdict = Literal["better", "worse", "no difference", "too few runs"]
BySeed = Mapping[int, float]


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (NaN for a single value)."""

    mean: float
    deviation: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of one or more values."""
        deviation = statistics.stdev(values) if len(values) > 1 else math.nan
        return cls(statistics.fmean(values), deviation, len(values))


@dataclass(frozen=True)
class Difference:
    """A difference of means with the half width of its 95 % confidence interval."""

    mean: float
    half_width: float  # NaN if it is unknown
    seeds: int  # pairs

    @property
    def verdict(self) -> Verdict:
        """Whether the interval excludes 0."""
        if math.isnan(self.half_width):
            return "too few runs"
        if abs(self.mean) <= self.half_width:
            return "no difference"
        return "better" if self.mean > 0 else "worse"


def difference(ours: BySeed, reference: BySeed) -> Difference | None:
    """Return the difference of two recipes on one data set; None without a common seed."""
    return mean_difference([(ours, reference)])


def independent_difference(ours: Sequence[float], reference: Sequence[float]) -> Difference | None:
    """Return the difference of runs whose seeds have nothing in common; None without runs."""
    if not ours or not reference:
        return None
    sides = [Spread.of(ours), Spread.of(reference)]
    half_width = _half_width([_term(side) for side in sides], 1)
    return Difference(sides[0].mean - sides[1].mean, half_width, len(ours))


def mean_difference(pairs: Sequence[tuple[BySeed, BySeed]]) -> Difference | None:
    """Return the difference of two recipes, averaged over data sets of equal weight.

    Only seeds that both have are compared. The interval is Welch's: the variances of both sides
    are not assumed equal, and the degrees of freedom are those of Satterthwaite over all of them.

    Args:
        pairs: for each data set, metrics by seed of a recipe and of the reference.
    """
    means: list[float] = []
    terms: list[tuple[float, int]] = []  # variance of each mean, degrees of freedom
    seeds = 0
    for ours, reference in pairs:
        common = sorted(set(ours) & set(reference))
        if not common:
            continue
        seeds += len(common)
        sides = [Spread.of([side[seed] for seed in common]) for side in (ours, reference)]
        means.append(sides[0].mean - sides[1].mean)
        terms += map(_term, sides)
    if not means:
        return None
    return Difference(statistics.fmean(means), _half_width(terms, len(means)), seeds)


def _term(side: Spread) -> tuple[float, int]:
    """Return the variance of a mean, and its degrees of freedom."""
    return side.deviation**2 / side.count, side.count - 1


def _half_width(terms: Sequence[tuple[float, int]], num_means: int) -> float:
    if any(math.isnan(variance) for variance, _ in terms):
        return math.nan
    total = sum(variance for variance, _ in terms)
    if total == 0:
        return 0.0
    freedom = total**2 / sum(variance**2 / count for variance, count in terms)
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(total) / num_means
