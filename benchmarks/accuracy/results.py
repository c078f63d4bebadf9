"""Results of runs: one JSON file per run."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.misc.files import write_text

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "results" / "accuracy"
_TOLERANCE = 1.05  # epochs do not end exactly at the time limit


@dataclass(frozen=True, kw_only=True)
class Point:
    """An evaluation during a run; `minutes` of training and evaluation so far."""

    minutes: float
    epoch: int  # from 1
    AP: float
    AP50: float
    per_class: Mapping[str, float]  # AP by class name

    @classmethod
    def of(cls, metrics: Mapping[str, Any], *, minutes: float, epoch: int) -> "Point":
        """Return a point from `Evaluation.as_dict` or an epoch of `log.jsonl`."""
        classes = {name: each["AP"] for name, each in metrics["per_class"].items()}
        return cls(
            minutes=round(minutes, 3),
            epoch=epoch,
            AP=round(metrics["AP"], 4),
            AP50=round(metrics["AP50"], 4),
            per_class={name: round(ap, 4) for name, ap in classes.items() if _is_number(ap)},
        )

    @staticmethod
    def summary(metrics: Mapping[str, Any]) -> dict[str, float]:
        """Return the COCO metrics of `Evaluation.as_dict`."""
        found = ((k, v) for k, v in metrics.items() if k.startswith(("AP", "AR")))
        return {name: round(value, 4) for name, value in found}


@dataclass(frozen=True, kw_only=True)
class Result:
    """A complete run.

    Attributes:
        dataset: name of the data set.
        recipe: name of the recipe or of the peer.
        seed: of the run.
        kind: "ours" or "peer".
        settings: of the data set and the recipe, as given.
        run: resolved schedule and changed settings, or settings of the peer.
        command: that was run.
        machine: see `rtdetrv2.analysis.timing.machine`.
        steps: optimizer steps.
        curve: all evaluations in order.
        best: metrics of the evaluation with the highest AP.
        other_cores: cores that other processes used, on average.
        is_resumed: whether the run was interrupted, so that its times are approximate.
        log: the last lines of the log.
    """

    dataset: str
    recipe: str
    seed: int
    kind: str
    settings: Mapping[str, Any]
    run: Mapping[str, Any]
    command: Sequence[str]
    machine: Mapping[str, str]
    steps: int
    curve: Sequence[Point]
    best: Mapping[str, float]
    other_cores: float
    is_resumed: bool = False
    log: Sequence[str] = field(default_factory=list)

    @property
    def minutes(self) -> float:
        """Minutes of training and evaluation."""
        return self.curve[-1].minutes

    def best_within(self, minutes: float, metric: str) -> float:
        """Return the metric of the evaluation with the highest AP within a time, 0 without one."""
        inside = [point for point in self.curve if point.minutes <= minutes * _TOLERANCE]
        best = max(inside, key=lambda point: point.AP, default=None)
        return 0.0 if best is None else float(getattr(best, metric))

    def minutes_to(self, ap50: float) -> float | None:
        """Return the minutes until AP50 reached a value; None if it never did."""
        return next((point.minutes for point in self.curve if ap50 <= point.AP50), None)


def save(result: Result, path: Path) -> None:
    """Write a result with relative paths; the file is complete or does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(result), indent=1) + "\n"
    write_text(path, text.replace(f"{ROOT}/", "").replace(f"{ROOT.parent}/", "../"))


def load(path: Path) -> Result:
    """Read a result.

    Raises:
        ValueError: naming a file that is not a result.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Result(**{**values, "curve": [Point(**point) for point in values["curve"]]})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a result of this benchmark ({error}); delete it") from error


def load_all(folder: Path) -> list[Result]:
    """Read all results of a folder, without its subfolders."""
    return [load(path) for path in sorted(folder.glob("*.json"))]


def load_tree(folder: Path) -> dict[str, list[Result]]:
    """Return the results of a folder under "", and those of its subfolders by name."""
    folders = [folder, *(path for path in sorted(folder.glob("*")) if path.is_dir())]
    found = {"" if each == folder else each.name: load_all(each) for each in folders}
    return {name: results for name, results in found.items() if results}


def by_seed(results: Iterable[Result], dataset: str, recipe: str) -> dict[int, Result]:
    """Return the results of a recipe on a data set by seed."""
    return {r.seed: r for r in results if (r.dataset, r.recipe) == (dataset, recipe)}


def speed_class(machine: Mapping[str, str]) -> tuple[str, str]:
    """Return what times depend on: the device, with its instructions, and the threads."""
    return machine["device"], machine["threads"]


def comparable_times(results: Iterable[Result], dataset: str, recipe: str) -> list[list[Result]]:
    """Return the results on a data set for each kind of machine on which a recipe has run.

    The kind with most runs of the recipe is the first; where two have as many, that with most runs
    of all recipes. See `speed_class`.
    """
    mine = [r for r in results if r.dataset == dataset]
    everywhere = Counter(speed_class(r.machine) for r in mine)
    counts = Counter(speed_class(r.machine) for r in mine if r.recipe == recipe)
    kinds = sorted(counts, key=lambda each: (counts[each], everywhere[each]), reverse=True)
    return [[r for r in mine if speed_class(r.machine) == kind] for kind in kinds]


def _is_number(value: float | None) -> bool:
    """Return whether the class has boxes: without them AP is NaN, in a log None."""
    return value is not None and not math.isnan(value)
