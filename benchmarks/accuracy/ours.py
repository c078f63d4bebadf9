"""Run a recipe with `rtdetrv2 train`, in a process of its own."""

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from rtdetrv2.analysis.timing import OtherProcesses, machine
from rtdetrv2_pytorch.src.data.coco_dataset import parse_coco
from rtdetrv2_pytorch.src.data.findings import Findings
from rtdetrv2_pytorch.src.data.loading.repeats import (
    RepeatedImages,
    image_fractions,
    recommended_threshold,
    repeat_factors,
)
from rtdetrv2_pytorch.src.data.splits import Split
from rtdetrv2_pytorch.src.report.run_log import RunLog, read_run_log
from rtdetrv2_pytorch.src.solver.checkpointing import BEST, LAST
from rtdetrv2_pytorch.src.solver.observers import LOG as EVENTS

from .averaging import average_best
from .jobs import Experiment, Job
from .processes import RunError, log_tail, run_logged
from .recipes import Recipe, assignments, find_recipe
from .results import Point, Result
from .scoring import average_precision, evaluate_checkpoint

# Report, pictures and trackers take time and change no weights; last.pth suffices to resume.
_QUIET = {"report": False, "pictures": False, "loggers": [], "checkpoint_freq": 0}
_RUN = ("epochs", "steps_per_epoch", "batch_size", "image_size_hw", "precision", "schedule")


def run(job: Job, experiment: Experiment, on_progress: Callable[[float], None]) -> Result:
    """Train, or resume an interrupted training.

    Args:
        job: the run.
        experiment: its options.
        on_progress: called with the finished part, 0..1.

    Raises:
        RunError: if the training fails or was stopped.
        RTDETRError: if the data set cannot be used.
    """
    recipe, folder = find_recipe(job.recipe), job.folder(experiment)
    splits = job.dataset.splits()
    epochs, steps, repeats = _length(job, recipe, splits.train)
    update = {
        **_QUIET,
        **job.dataset.update,
        **repeats,
        **recipe.resolved(epochs=epochs, steps=steps),
    }
    log = folder.with_name(f"{job.name}.log")
    is_resumed = (folder / LAST).is_file()
    command = train_command(job, experiment, folder, epochs, update, is_resumed=is_resumed)

    def on_poll() -> None:
        done = read_run_log(folder / EVENTS).epochs
        on_progress(len(done) / epochs)

    facts = machine(torch.device(experiment.device))
    with (others := OtherProcesses()):
        if not _is_complete(read_run_log(folder / EVENTS)):  # killed before the result was written
            run_logged([sys.executable, *command], log, on_poll=on_poll)
    events = read_run_log(folder / EVENTS)
    if not _is_complete(events):
        raise RunError(f"stopped after {len(events.epochs)} epochs; run it again to resume")
    points, best = _scores(folder, events, recipe.average, splits.val, experiment)
    result = Result(
        dataset=job.dataset.name,
        recipe=job.recipe,
        seed=job.seed,
        kind="ours",
        settings={**settings_of(job, experiment), "update": update},
        run={key: events.plan[key] for key in _RUN} | {"changes": events.plan["changes"]},
        command=["rtdetrv2", *command[2:]],
        machine=facts,
        steps=events.plan["steps_per_epoch"] * events.plan["epochs"],
        curve=points,
        best=best,
        other_cores=round(others.cores(), 2),
        is_resumed=is_resumed,
        log=log_tail(log),
    )
    shutil.rmtree(folder)  # checkpoints take 400 MB
    return result


def _length(job: Job, recipe: Recipe, split: Split) -> tuple[int, int, dict[str, float]]:
    """Return epochs, optimizer steps, and the values that repeat images of rare classes.

    Repeated images make epochs longer; the number of steps remains the same as nearly as whole
    epochs allow.
    """
    data = job.dataset
    content = json.loads(split.ann_file.read_text())
    steps = len(content["images"]) // data.batch * data.epochs
    if not recipe.repeats_rare:
        return data.epochs, steps, {}
    annotations = parse_coco(content, split.ann_file, split.img_folder, Findings(), None)
    threshold = recommended_threshold(image_fractions(annotations))
    if threshold is None:
        raise RunError(f"{data.name}: its classes are in balance; run another recipe")
    images = RepeatedImages(repeat_factors(annotations, threshold))
    epochs = max(1, round(steps / (len(images) // data.batch)))
    return epochs, len(images) // data.batch * epochs, {"repeat_threshold": threshold}


def _is_complete(events: RunLog) -> bool:
    return events.end is not None and not events.end["stopped"]


def _scores(
    folder: Path, events: RunLog, average: int, val: Split, experiment: Experiment
) -> tuple[list[Point], dict[str, float]]:
    """Return all evaluations, and the metrics of the weights that the recipe gives.

    Args:
        folder: of the run.
        events: of the run.
        average: see `Recipe.average`.
        val: the validation split.
        experiment: its device and limit of detections.
    """
    assert events.end is not None
    points, best = curve(events), Point.summary(events.end["best"])
    checkpoint, limit = folder / BEST, experiment.max_detections
    if average:
        checkpoint = average_best(folder, events.epochs, average)
    if not average and limit is None:
        return points, best
    evaluation, rows = evaluate_checkpoint(checkpoint, val, experiment.device)
    if average:
        metrics, end = evaluation.as_dict(), points[-1]
        best = Point.summary(metrics)
        points.append(Point.of(metrics, minutes=end.minutes, epoch=end.epoch))
    if limit is not None:
        best["AP_max_detections"] = average_precision(val.ann_file, rows, limit)
    return points, best


def train_command(
    job: Job,
    experiment: Experiment,
    folder: Path,
    epochs: int,
    update: Mapping[str, Any],
    *,
    is_resumed: bool,
) -> list[str]:
    """Return the arguments of Python that train or resume a run."""
    data = job.dataset
    options = {
        "--data": data.folder,
        "--model": data.model,
        "--epochs": epochs,
        "--batch-size": data.batch,
        "--size": data.size,
        "--seed": job.seed,
        "--device": experiment.device,
        "--output-dir": folder,
    }
    start = ["-m", "rtdetrv2", "train", "--no-doctor"]
    if is_resumed:
        return [*start, "--data", str(data.folder), "--resume", str(folder / LAST)]
    return [
        *(*start, "--weights", experiment.weights),
        *(text for name, value in options.items() for text in (name, str(value))),
        *(text for assignment in assignments(update) for text in ("-u", assignment)),
    ]


def settings_of(job: Job, experiment: Experiment) -> dict[str, Any]:
    """Return what the data set and the experiment set."""
    data = job.dataset
    return {
        "model": data.model,
        "size": data.size,
        "epochs": data.epochs,
        "batch": data.batch,
        "weights": experiment.weights,
    }


def curve(events: RunLog) -> list[Point]:
    """Return all evaluations with the time of training and evaluation so far."""
    seconds, points = 0.0, []
    for event in events.epochs:
        seconds += event["train_s"] + event["eval_s"]
        if "AP" in event:  # otherwise an epoch without an evaluation
            points.append(Point.of(event, minutes=seconds / 60, epoch=event["epoch"] + 1))
    return points
