"""Compare the accuracy of training recipes and of other trainers; see docs/accuracy.md."""

import argparse
import hashlib
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rtdetrv2.training.model_table import NONE, WEIGHTS
from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.misc.files import FolderLock, write_text

from . import page, results
from .datasets import DATASETS, WORK, DataSet, rf100vl
from .jobs import MAIN, Experiment, Job, estimates, left_minutes, plan
from .peers import PEERS
from .recipes import RECIPES, REFERENCE, find_recipe
from .running import run_all

_PROTOCOL = "rf100vl"
_RF100VL_DETECTIONS = 500


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, and write the page."""
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        datasets, experiment = _experiment(args)
        _check_names(args.only, datasets)
    except ValueError as error:
        parser.error(str(error))
    console = Console()
    jobs = _jobs(args, datasets, experiment, console)
    if args.list:
        _list(jobs, experiment, console)
        return 0
    if args.page:
        return _write_page(console)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    experiment.work.mkdir(parents=True, exist_ok=True)
    try:
        with FolderLock(experiment.work, remedy="wait until it ends, or give another --work"):
            failed = run_all(jobs, experiment, console)
    except ConfigError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        console.print("Interrupted. Run the same command again to resume.")
        return 130
    is_default = results.FOLDER in (experiment.results, experiment.results.parent)
    return max(_write_page(console) if is_default else 0, int(failed > 0))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks accuracy", description=__doc__)
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="data sets, recipes, combinations such as lr-1e-3+cosine, trainers; default: all data "
        f"sets, each with {REFERENCE}, its default and its earlier default; with --protocol, "
        f"--weights or --device, {REFERENCE} only",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="run all recipes, which takes days; not with recipes in --only",
    )
    parser.add_argument("--peers", action="store_true", help="also run the public trainers")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument(
        "--epochs", type=int, help="epochs of a run instead of those of the data set"
    )
    parser.add_argument("--weights", help="none, coco, objects365 or a file; default: none")
    parser.add_argument("--device", default="cpu", help="cpu, cuda; default: cpu")
    parser.add_argument(
        "--protocol",
        nargs=2,
        metavar=(_PROTOCOL, "FOLDER"),
        help="the RF100-VL protocol on each data set in a folder; default weights: coco",
    )
    parser.add_argument("--size", type=int, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, help="images per step")
    parser.add_argument("--results", type=Path, help="folder of the results")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of unfinished runs")
    parser.add_argument("--list", action="store_true", help="list the runs and the time left")
    parser.add_argument("--page", action="store_true", help="only write docs/accuracy.md")
    return parser


def _experiment(args: argparse.Namespace) -> tuple[dict[str, DataSet], Experiment]:
    """Return the data sets and the options of all runs.

    Raises:
        ValueError: if an option is invalid.
    """
    datasets, weights, limit = DATASETS, args.weights or NONE, None
    if args.protocol:
        name, place = args.protocol
        if name != _PROTOCOL:
            raise ValueError(f"--protocol {name}: unknown; there is {_PROTOCOL}")
        datasets, limit = rf100vl(Path(place)), _RF100VL_DETECTIONS
        weights = args.weights or "coco"
    name = "-".join(
        [*([_PROTOCOL] if args.protocol else []), args.device.split(":")[0], _short(weights)]
    )
    folder = results.FOLDER if name == MAIN else results.FOLDER / name
    if args.all and set(args.only) - set(datasets):
        raise ValueError("--all runs all recipes: name only data sets in --only")
    if weights != NONE and (args.peers or set(args.only) & set(PEERS)):
        raise ValueError("other trainers start from random weights: leave out --weights")
    changes = {"epochs": args.epochs, "size": args.size, "batch": args.batch}
    changes = {name: value for name, value in changes.items() if value is not None}
    if changes:
        datasets = dict(_changed(each, changes) for each in datasets.values())
    experiment = Experiment(
        name=name,
        results=args.results or folder,
        work=args.work,
        device=args.device,
        weights=weights,
        max_detections=limit,
    )
    return datasets, experiment


def _short(weights: str) -> str:
    """Return a name for weights, with a hash of the path of a file."""
    path = Path(weights)
    if weights in WEIGHTS:
        return weights
    return f"{path.stem}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:6]}"


def _changed(dataset: DataSet, changes: dict[str, Any]) -> tuple[str, DataSet]:
    """Return a data set with runs of another length or size, under a name that says so."""
    suffix = {"epochs": "e", "size": "px", "batch": "b"}
    name = "-".join([dataset.name, *(f"{value}{suffix[key]}" for key, value in changes.items())])
    minutes = dataset.minutes * changes.get("epochs", dataset.epochs) / dataset.epochs
    return dataset.name, replace(dataset, name=name, minutes=minutes, **changes)


def _check_names(names: Sequence[str], datasets: Iterable[str]) -> None:
    """Check the names of data sets, trainers, recipes and combinations of recipes.

    Raises:
        ValueError: if a name is unknown.
    """
    for name in set(names) - {*datasets, *PEERS}:
        try:
            find_recipe(name)
        except ValueError as error:
            raise ValueError(
                f"--only {name}: {error}; data sets {', '.join(datasets)}; trainers "
                f"{', '.join(PEERS)}"
            ) from error


def _jobs(
    args: argparse.Namespace,
    datasets: dict[str, DataSet],
    experiment: Experiment,
    console: Console,
) -> list[Job]:
    """Return the chosen runs on the data sets that are present."""
    wanted = [each for name, each in datasets.items() if name in args.only]
    wanted = wanted or list(datasets.values())
    recipes: list[str] | None = [name for name in args.only if name not in datasets] or None
    if recipes is None and args.all:
        defaults = (name for data in wanted for name in (data.default, data.earlier))
        recipes = [*RECIPES, *defaults]
    elif recipes is None and experiment.name != MAIN:
        recipes = [REFERENCE]  # the defaults are those of trainings from random weights on a CPU
    for dataset in wanted:
        if reason := dataset.missing():
            console.print(f"{dataset.name} skipped: {reason}", style="yellow")
    present = [dataset for dataset in wanted if not dataset.missing()]
    return plan(present, recipes, args.seeds, experiment, has_peers=args.peers)


def _list(jobs: Sequence[Job], experiment: Experiment, console: Console) -> None:
    """Print all runs and the time left."""
    done = {job.name for job in jobs if job.path(experiment).is_file()}
    finished = results.load_all(experiment.results)
    minutes = estimates(jobs, finished)
    table = Table("run", "state", "minutes")
    table.columns[2].justify = "right"
    for job in jobs:
        state = "finished" if job.name in done else "missing"
        table.add_row(job.name, state, f"{minutes[job.name]:.1f}")
    left = left_minutes(jobs, minutes, done, 0.0)
    console.print(table)
    console.print(f"{len(done)} of {len(jobs)} runs finished, about {left / 60:.1f} hours left")


def _write_page(console: Console) -> int:
    write_text(page.PAGE, page.generate(results.load_tree(results.FOLDER)))
    console.print(f"{page.PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
