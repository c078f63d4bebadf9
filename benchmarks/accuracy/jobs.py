"""The runs of an experiment, in order of value, and their files."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .datasets import DataSet
from .peers import PEERS
from .recipes import REFERENCE, find_recipe
from .results import Result, by_seed, speed_class

MAIN = "cpu-none"  # the experiment whose results are in the main folder


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Options of all runs.

    Attributes:
        name: of the folder of unfinished runs.
        results: folder of the JSON files.
        work: folder for runs, data and environments of peers.
        device: cpu or cuda.
        weights: none, coco, objects365 or a file.
        max_detections: per image and class in the final AP; None: the trainer's own limit.
    """

    results: Path
    work: Path
    name: str = MAIN
    device: str = "cpu"
    weights: str = "none"
    max_detections: int | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: a recipe or a peer on a data set with a seed."""

    dataset: DataSet
    recipe: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.dataset.name}_{self.recipe}_s{self.seed}"

    @property
    def is_peer(self) -> bool:
        """Whether it is a run of another package."""
        return self.recipe in PEERS

    def path(self, experiment: Experiment) -> Path:
        """Return the path of its result."""
        return experiment.results / f"{self.name}.json"

    def folder(self, experiment: Experiment) -> Path:
        """Return the folder of its unfinished run, apart for each device and weights."""
        return experiment.work / "runs" / experiment.name / self.name


def plan(
    datasets: Sequence[DataSet],
    recipes: Sequence[str] | None,
    seeds: Sequence[int],
    experiment: Experiment,
    *,
    has_peers: bool = False,
) -> list[Job]:
    """Return all runs: the first seed of everything before the second one, then the peers.

    Peers get the mean time of the reference recipe, so it runs first with all seeds.

    Args:
        datasets: to train on.
        recipes: recipes and peers; None: the reference, the default of each data set and its
            earlier one.
        seeds: of each recipe.
        experiment: its options.
        has_peers: whether to add all peers.
    """
    has_weights = experiment.weights != "none"

    def chosen(dataset: DataSet) -> list[str]:
        wanted: Sequence[str] = recipes or (REFERENCE, dataset.default, dataset.earlier)
        wanted = (*wanted, *(PEERS if has_peers else ()))
        return sorted(dict.fromkeys(wanted), key=lambda recipe: recipe != REFERENCE)

    def is_possible(dataset: DataSet, recipe: str) -> bool:
        if recipe in PEERS:
            return True
        needs = find_recipe(recipe)
        return (has_weights or not needs.needs_weights) and (
            bool(dataset.rare) or not needs.repeats_rare
        )

    jobs = [
        Job(dataset=dataset, recipe=recipe, seed=seed)
        for seed in seeds
        for dataset in datasets
        for recipe in chosen(dataset)
        if is_possible(dataset, recipe)
    ]
    return sorted(jobs, key=lambda job: job.is_peer)


def budget_minutes(
    dataset: DataSet, results: Sequence[Result], machine: Mapping[str, str]
) -> float | None:
    """Return the time for peers: the mean of the reference recipe on such a machine.

    None if it has not run there.
    """
    reference = by_seed(results, dataset.name, REFERENCE).values()
    found = [r.minutes for r in reference if speed_class(r.machine) == speed_class(machine)]
    return statistics.fmean(found) if found else None


def estimates(jobs: Sequence[Job], results: Sequence[Result]) -> dict[str, float]:
    """Return the minutes of each run by name, from finished runs where there are any."""
    return {job.name: _estimate(job, results) for job in jobs}


def _estimate(job: Job, results: Sequence[Result]) -> float:
    same: list[Iterator[float]] = [
        (r.minutes for r in results if (r.dataset, r.recipe) == (job.dataset.name, job.recipe)),
        (r.minutes for r in results if r.dataset == job.dataset.name),
    ]
    for each in same:
        if found := list(each):
            return statistics.median(found)
    return job.dataset.minutes


def left_minutes(
    jobs: Sequence[Job], estimate: Mapping[str, float], done: set[str], share: float
) -> float:
    """Return the estimated minutes that are left.

    Args:
        jobs: all runs, in order.
        estimate: minutes by name.
        done: names of finished and failed runs.
        share: finished part of the first run that is not done, 0..1.
    """
    rest = [job.name for job in jobs if job.name not in done]
    return sum(estimate[name] for name in rest) - (share * estimate[rest[0]] if rest else 0)
