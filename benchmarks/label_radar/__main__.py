"""Spoil 5 % of the training boxes, and measure what the label radar finds.

    python -m benchmarks.label_radar --sets digits bccd cards --seeds 0 1 2

Each set is trained from random weights as `rtdetrv2 train` trains it, with the image size and the
epochs of `make proof`, on its own labels, on spoiled labels, and on the labels that are left
spoiled after those that the radar found are repaired. A finished training is not repeated, and a
stopped one is resumed. The results are in benchmarks/results/label_radar_SET_sSEED.json, with
`--fraction 0.2` in label_radar_SET_20percent_sSEED.json.

    python -m benchmarks.label_radar --judge output/bccd

spoils the labels of a finished training afterwards, so that its network has seen the correct ones.
This is the best case and needs no training.
"""

import argparse
import json
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.accuracy.datasets import DATASETS, DataSet
from benchmarks.label_radar.spoiling import (
    KINDS,
    Spoiled,
    averaged,
    hits,
    precision_at,
    recall_at,
    repaired,
    spoil,
)
from rtdetrv2.analysis.annotated_split import evaluate_runtime, read_split
from rtdetrv2.analysis.opening import open_model
from rtdetrv2.analysis.radar.radar import RadarOptions, find_label_errors
from rtdetrv2.analysis.radar.suspicions import Suspicion, find_suspicions
from rtdetrv2.analysis.timing import machine
from rtdetrv2.terminal.console import LiveLine
from rtdetrv2.terminal.training_steps import ConsoleProgress
from rtdetrv2.terminal.training_view import TrainingFollower
from rtdetrv2.training import run as training
from rtdetrv2.training.finished_run import best_weights, open_run
from rtdetrv2.training.options import TrainOptions
from rtdetrv2_pytorch.src.data.coco_dataset import parse_coco
from rtdetrv2_pytorch.src.data.findings import Findings
from rtdetrv2_pytorch.src.data.splits import Splits
from rtdetrv2_pytorch.src.misc.weights import load_checkpoint
from rtdetrv2_pytorch.src.report.run_log import read_run_log
from rtdetrv2_pytorch.src.solver.checkpointing import LAST
from rtdetrv2_pytorch.src.solver.observers import LOG as EVENTS
from rtdetrv2_pytorch.src.solver.run import MODEL_CONFIG

_ROOT = Path(__file__).parents[2]
_SETS = ("digits", "bccd", "cards", "raccoon")
JUDGES = ("folds", "trained network", "mean of all epochs", "mean of folds and epochs")
_PERCENT = 5  # of the boxes
_FIRST, _FALSE_RATE = 50, 0.05


class Proof:
    """The trainings of one set with one seed.

    Args:
        data: the set.
        folder: for trainings and labels.
        seed: of the spoiled labels and of the trainings.
        args: of the command line.
        console: to print to.
    """

    def __init__(
        self, data: DataSet, folder: Path, seed: int, args: argparse.Namespace, console: Console
    ) -> None:
        self.data, self.folder, self.seed = data, folder, seed
        self.args, self.console = args, console
        self.folder.mkdir(parents=True, exist_ok=True)
        self.splits: Splits = data.splits()
        self.content = json.loads(self.splits.train.ann_file.read_text())

    def measure(self) -> dict[str, Any]:
        """Train, search and repair; return the results."""
        spoiled, made = spoil(self.content, self.args.fraction, seed=self.seed)
        num_clean = len(self.content["annotations"]) - len(made)
        results: dict[str, Any] = {"set": self.data.name, "seed": self.seed}
        results |= {"labels": len(self.content["annotations"]), "spoiled": len(made)}
        results["settings"] = {
            "size": self.data.size,
            "epochs": self.data.epochs,
            "batch": self.data.batch,
            "fraction": self.args.fraction,
            "folds": self.args.folds,
            "fold_epochs": self.args.fold_epochs,
            "start": self.args.start,
            "update": self.args.update,
        }
        run = self._train("spoiled", spoiled)
        started = time.monotonic()
        with LiveLine(self.console) as line:
            found = find_label_errors(
                run,
                RadarOptions(
                    device=self.args.device,
                    folds=self.args.folds,
                    epochs=self.args.fold_epochs,
                    start=self.args.start,
                ),
                progress=ConsoleProgress(self.console, line),
                followers=[TrainingFollower(self.console, line)],
            )
        folds = sorted((run / "label_radar").glob("fold*/training"))
        seconds = {
            "training and evaluation": _seconds(run),
            "networks of the folds": sum(map(_seconds, folds)),
            "search, without what had been finished": round(time.monotonic() - started),
        }
        own = [each for each in found.suspicions if each.split == "train"]
        results["folds"] = _scores(own, made, num_clean)
        results["folds"]["rates"] = found.rates["train"]
        results["trained network"] = _scores(self._in_sample(best_weights(run)), made, num_clean)
        epochs = sorted(run.glob("checkpoint*.pth"), reverse=True)
        history = [self._in_sample(path) for path in epochs]
        results["mean of all epochs"] = _scores(averaged(history), made, num_clean)
        both = averaged([own, averaged(history)])
        results["mean of folds and epochs"] = _scores(both, made, num_clean)
        results["seconds"] = seconds
        if not self.args.no_repair:
            seen = {i for i in hits([e for e in own if e.probability >= 0.5], made) if i >= 0}
            left = repaired(self.content, spoiled, made, seen)
            runs = {"spoiled": run, "repaired": self._train("repaired", left)}
            runs["own labels"] = self._train("own", self.content)
            results["repaired"] = len(seen)
            results["AP"] = {name: _ap(each) for name, each in runs.items()}
        return results

    def _in_sample(self, weights: Path) -> list[Suspicion]:
        """Return the suspicions by a network of the training, which has seen the labels."""
        runtime = open_model(weights, device=self.args.device)
        img_folder = self.splits.train.img_folder
        split = read_split(self.folder / "spoiled.json", img_folder, runtime.card)
        found = evaluate_runtime(runtime, split, batch_size=8).detections
        assert found is not None
        return find_suspicions(split.annotations, found, split="train")[0]

    def _train(self, name: str, content: dict[str, Any]) -> Path:
        labels, run = self.folder / f"{name}.json", self.folder / f"run_{name}"
        labels.write_text(json.dumps(content))
        if (run / "finished").is_file():
            return run
        update = [
            f"train_dataloader.dataset.ann_file={labels}",
            *("report=False", "pictures=False", "loggers=[]"),
            f"checkpoint_freq={int(name == 'spoiled')}",
            *self.args.update,
        ]
        start: dict[str, Any] = {
            "data": self.data.folder,
            "model": self.data.model,
            "tuning": self.args.weights,
        }
        if (run / LAST).is_file():
            start = {"config": run / MODEL_CONFIG, "resume": ""}
        with LiveLine(self.console) as line:
            outcome = training.train(
                TrainOptions(
                    **start,
                    epochs=self.data.epochs,
                    batch_size=self.data.batch,
                    size=self.data.size,
                    seed=self.seed,
                    device=self.args.device,
                    output_dir=str(run),
                    examine=False,
                    update=update,
                ),
                progress=ConsoleProgress(self.console, line),
                followers=[TrainingFollower(self.console, line)],
            )
        if outcome.result is not None and outcome.result.stopped:
            raise SystemExit(f"{outcome.result.stopped}: run the same command again to resume")
        (run / "finished").touch()
        return run


def judge(run: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Spoil the labels of a finished training, once per seed; return the scores by split."""
    cfg = open_run(run, data=None, device=args.device)
    runtime = open_model(best_weights(run), device=args.device, config=run / MODEL_CONFIG)
    results = {}
    for split, dataset in (("train", cfg.train_dataset), ("val", cfg.val_dataset)):
        content = json.loads(Path(dataset.ann_file).read_text())
        whole = read_split(Path(dataset.ann_file), dataset.img_folder, runtime.card)
        found = evaluate_runtime(runtime, whole, batch_size=8).detections
        assert found is not None
        for seed in args.seeds:
            spoiled, made = spoil(content, args.fraction, seed=seed)
            table = whole.annotations.categories
            findings = Findings()
            path = Path(dataset.ann_file)
            annotations = parse_coco(spoiled, path, dataset.img_folder, findings, table)
            suspicions = find_suspicions(annotations, found, split=split)[0]
            num_clean = len(content["annotations"]) - len(made)
            results[f"{split}, seed {seed}"] = _scores(suspicions, made, num_clean)
    return results


def _scores(
    suspicions: Sequence[Suspicion], made: Sequence[Spoiled], num_clean: int
) -> dict[str, Any]:
    found = hits(suspicions, made)
    seen = {i for i in found if i >= 0}
    return {
        f"precision of the first {_FIRST}": precision_at(found, _FIRST),
        "recall at 5 % false alarms": recall_at(found, len(made), num_clean, _FALSE_RATE),
        "listed": len(suspicions),
        "found by kind": {
            kind: [
                sum(made[i].kind == kind for i in seen),
                sum(each.kind == kind for each in made),
            ]
            for kind in KINDS
        },
        "first": [
            {**each.as_dict(), "spoiled": index >= 0}
            for each, index in list(zip(suspicions, found, strict=True))[:_FIRST]
        ],
    }


def _seconds(run: Path) -> float:
    """Return the seconds of training and evaluation of a run."""
    return round(
        sum(each["train_s"] + each["eval_s"] for each in read_run_log(run / EVENTS).epochs)
    )


def _ap(run: Path) -> float:
    metrics = load_checkpoint(best_weights(run))["metrics"]
    return float(metrics["AP"])


def main() -> None:
    """Measure the chosen sets."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.label_radar", description=__doc__)
    parser.add_argument("--sets", nargs="+", default=_SETS[:3], choices=_SETS)
    parser.add_argument("--folder", type=Path, default=Path("output", "label_radar"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--weights", default="none", help="to start from, default: random ones")
    parser.add_argument("--fraction", type=float, default=_PERCENT / 100)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--fold-epochs", type=int, help="default: as the radar chooses")
    parser.add_argument("--start", default="checkpoint", choices=("weights", "checkpoint"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-repair", action="store_true", help="only search")
    parser.add_argument("-u", "--update", nargs="+", default=[], help="of the configuration")
    parser.add_argument("--judge", type=Path, metavar="RUN", help="spoil the labels of this run")
    args = parser.parse_args()
    console = Console()
    if args.judge is not None:
        for name, scores in judge(args.judge, args).items():
            console.print(name, {key: v for key, v in scores.items() if key != "first"})
        return
    for name, seed in product(args.sets, args.seeds):
        percent = round(100 * args.fraction)
        spoiled = name if percent == _PERCENT else f"{name}_{percent}percent"
        folder = args.folder / spoiled / f"seed{seed}"
        results = Proof(DATASETS[name], folder, seed, args, console).measure()
        results["machine"] = machine(torch.device(args.device))
        path = _ROOT / "benchmarks" / "results" / f"label_radar_{spoiled}_s{seed}.json"
        path.write_text(json.dumps(results, indent=1, default=str) + "\n")
        shown = {key: value for key, value in results.items() if key != "machine"}
        for kind in JUDGES:
            shown[kind] = {key: v for key, v in results[kind].items() if key != "first"}
        console.print(shown, path)


if __name__ == "__main__":
    main()
