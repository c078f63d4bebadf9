"""Console view of a training: a progress line, a line per epoch, a table at the end.

It shows lines of log.jsonl, so that a training in another process looks the same.
"""

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from rtdetrv2_pytorch.src.misc.text import counted, printable
from rtdetrv2_pytorch.src.solver.events import (
    EpochReport,
    FitResult,
    StepReport,
    TrainingEvents,
    TrainingPlan,
)

from .console import (
    LiveLine,
    format_duration,
    print_detail,
    print_headline,
    print_notice,
    print_path,
    result_table,
)

_CLASSES_SHOWN = 12
Event = Mapping[str, Any]  # a line of log.jsonl


class TrainingView:
    """Prints the events of a training."""

    def __init__(self, console: Console, line: LiveLine) -> None:
        self._console = console
        self._line = line
        self._epochs = 0

    def show(self, event: Event) -> None:
        """Show a line of log.jsonl; unknown events are ignored."""
        shows = {"plan": self.plan, "step": self.step, "epoch": self.epoch, "end": self.end}
        if event["event"] in shows:
            shows[event["event"]](event)

    def plan(self, plan: Event) -> None:
        """Print the plan of the training."""
        self._epochs = plan["epochs"]
        names = plan["class_names"]
        more = ", ..." if len(names) > _CLASSES_SHOWN else ""
        print_headline(
            self._console,
            "Training",
            f"on {counted(plan['num_train_images'], 'image')}, evaluating on "
            f"{plan['num_val_images']}; "
            f"{counted(len(names), 'class')}: {', '.join(names[:_CLASSES_SHOWN])}{more}",
        )
        if not self._console.is_terminal:  # the log contains the rest
            return
        size = "x".join(map(str, plan["image_size_hw"] or "?"))
        epochs, steps = counted(self._epochs, "epoch"), counted(plan["steps_per_epoch"], "step")
        print_detail(
            self._console,
            f"{epochs} of {steps}, batch {plan['batch_size']}, {size} pixels (height x width), "
            f"{plan['precision']} on {plan['device']}",
        )
        for line in plan["schedule"]:
            print_detail(self._console, line)
        if plan["changes"]:
            print_detail(self._console, "adjusted values:")
        for line in plan["changes"]:
            print_detail(self._console, f"- {line}")

    def step(self, step: Event) -> None:
        """Update the progress line."""
        share = 100 * step["data_s"] / step["step_s"] if step["step_s"] else 0.0
        self._line.show(
            f"epoch {step['epoch'] + 1}/{self._epochs}",
            step["step"] + 1,
            step["num_steps"],
            details=(
                f"{format_duration(step['eta_s'])} left  loss {step['loss']:.3f}  "
                f"{step['images_per_s']:.1f} img/s  {share:.0f} % waiting for data  "
                f"lr {step['lr']:.1e}"
            ),
        )

    def epoch(self, epoch: Event) -> None:
        """Print the results of an epoch on one line of 80 characters."""
        duration = format_duration(epoch["train_s"] + epoch["eval_s"])
        loss = f"loss {epoch['train_loss']:.3f}"
        line = f"{loss}  {duration}"  # without an evaluation
        if "AP" in epoch:
            best = "  [green]best[/]" if epoch["is_best"] else ""
            line = (
                f"AP {epoch['AP']:.3f}  AP50 {epoch['AP50']:.3f}  {loss}  "
                f"val loss {epoch['val_loss']:.3f}  {duration}{best}"
            )
        self._console.print(f"epoch {epoch['epoch'] + 1:>3}/{self._epochs}  {line}")
        if self._console.is_terminal:
            speed = f"{epoch['images_per_s']:.1f} img/s"
            print_detail(self._console, f"{speed}, {epoch['verdict']}")
        for name in epoch["skipped_images"]:
            print_notice(self._console, f"  skipped image: {name}")
        if epoch["skipped_steps"]:
            print_notice(self._console, f"  {counted(epoch['skipped_steps'], 'step')} skipped")
        if epoch["epoch"] + 1 >= self._epochs:
            self._line.show("verifying the best weights")

    def end(self, end: Event) -> None:
        """Print the results of the training."""
        if end["stopped"]:
            complete = end["last_epoch"] + 1
            where = f"after epoch {complete}" if complete else "in the first epoch"
            print_notice(self._console, f"Stopped {where}: {end['stopped']}")
        if end["best"]:
            print_metrics(self._console, end["best"], f"Best: epoch {end['best_epoch'] + 1}")
        if end["confirmed"]:
            print_detail(self._console, f"Verified best.pth: AP {end['confirmed']['AP']:.4f}")
        self._line.show("writing the report")


class TrainingFollower(TrainingEvents):
    """Prints the events of a training in this process."""

    def __init__(self, console: Console, line: LiveLine) -> None:
        self._console = console
        self._line = line
        self._view = TrainingView(console, line)

    def train_started(self, plan: TrainingPlan) -> None:
        """Print the plan of the training."""
        self._view.plan(vars(plan))

    def step_finished(self, report: StepReport) -> None:
        """Update the progress line."""
        self._view.step(vars(report))

    def evaluation_step_finished(self, step: int, num_steps: int) -> None:
        """Show the progress of the evaluation."""
        self._line.show("evaluating", step, num_steps)

    def epoch_finished(self, report: EpochReport) -> None:
        """Print the results of an epoch."""
        self._view.epoch(report.as_log())

    def train_finished(self, result: FitResult) -> None:
        """Print the results of the training and the checkpoints."""
        found = (("best", result.best), ("confirmed", result.confirmed))
        measured = {name: e.as_dict() if e is not None else None for name, e in found}
        self._view.end({**vars(result), **measured})
        for path in result.checkpoints.values():
            print_path(self._console, path)


def print_metrics(console: Console, measured: Event, title: str) -> None:
    """Print the metrics of all classes (`Evaluation.as_dict()`, or log.jsonl) as a table."""
    table = result_table(console, title)
    table.add_column("class")
    for name in ("boxes", "AP", "AP50", "best threshold", "best F1"):
        table.add_column(name, justify="right")
    classes = measured["per_class"]
    for name, found in classes.items():
        table.add_row(escape(printable(name)), str(found["boxes"]), *_numbers(found))
    table.add_section()
    boxes = sum(found["boxes"] for found in classes.values())
    table.add_row("all", str(boxes), *_numbers(measured), style="bold")
    console.print(table)
    if "AP_coco" in measured:
        print_detail(
            console,
            f"AP counts {counted(measured['max_detections'], 'detection')} per class and image; "
            "with COCO's "
            f"limit of 100: AP {measured['AP_coco']:.3f}, AP50 {measured['AP50_coco']:.3f}",
        )


def _numbers(found: Event) -> list[str]:
    values = (found[key] for key in ("AP", "AP50", "best_threshold", "best_f1"))
    return [
        "-" if value is None or math.isnan(value) or value < 0 else f"{value:.3f}"
        for value in values
    ]
