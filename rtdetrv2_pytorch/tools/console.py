"""What people see in a terminal: a live line while it works, a line per epoch, tables.

Where the output is no terminal there is no live line, and the log's lines take its place.
"""

import logging
import math
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
)
from rich.table import Table

from ..src.data.evaluator import Evaluation
from ..src.misc.distributed import MainRankFilter
from ..src.misc.errors import ConfigError, RTDETRError
from ..src.misc.text import printable
from ..src.solver.events import EpochReport, FitResult, SilentEvents, StepReport, TrainingPlan

logger = logging.getLogger(__name__)

LOG_FILE = "train.log"


def set_up_logging(console: Console, *, debug: bool = False) -> None:
    """Show warnings in a terminal, all lines elsewhere; a file gets everything later."""
    level = logging.WARNING if console.is_terminal and not debug else logging.INFO
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_time=False)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.setLevel(level)
    handler.addFilter(MainRankFilter())
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.handlers = [handler]
    logging.captureWarnings(True)


def log_to_file(folder: Path) -> None:
    """Write every line of the log to a file of the run, too.

    Raises:
        ConfigError: if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(folder / LOG_FILE, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"output_dir = {str(folder)!r}: cannot be written ({error.strerror}); choose another"
        ) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    handler.addFilter(MainRankFilter())
    logging.getLogger().addHandler(handler)


def print_error(error: RTDETRError) -> None:
    """Say in one sentence what went wrong; the log gets where."""
    logger.debug("failed", exc_info=error)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]{type(error).__name__}[/]: {escape(printable(str(error)))}")


def print_path(console: Console, path: Path) -> None:
    """Say where something is: alone on its line, whole, to be copied or clicked."""
    console.print(escape(printable(str(path))), soft_wrap=True, highlight=False)


class ConsoleProgress(SilentEvents):
    """Shows a training in a terminal; elsewhere it prints the result only.

    Args:
        console: where to print.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[details]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._epochs = 0

    def __enter__(self) -> "ConsoleProgress":
        """Show the bars from now on, without a training."""
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def train_started(self, plan: TrainingPlan) -> None:
        """Say what will happen."""
        self._epochs = plan.epochs
        if not self.console.is_terminal:
            return
        size = f"{plan.image_size_hw[0]}x{plan.image_size_hw[1]}" if plan.image_size_hw else "?"
        self.console.print(
            f"[bold]Training[/] on {plan.num_train_images} images, evaluating on "
            f"{plan.num_val_images}; {len(plan.class_names)} classes: "
            f"{', '.join(plan.class_names[:12])}{', ...' if len(plan.class_names) > 12 else ''}"
        )
        self.console.print(
            f"{plan.epochs} epochs of {plan.steps_per_epoch} steps, batch {plan.batch_size}, "
            f"{size} pixels (height x width), {plan.precision} on {plan.device}"
        )
        for line in plan.schedule:
            self.console.print(f"  {line}", style="dim")
        if plan.changes:
            self.console.print("Changed to fit this run:")
            for line in plan.changes:
                self.console.print(f"  {line}", style="dim", highlight=False)
        self.console.print(f"Output: {plan.output_dir}\n", highlight=False)
        self._progress.start()

    def epoch_started(self, epoch: int, num_steps: int) -> None:
        """Begin a bar."""
        self._new_task(f"epoch {epoch + 1}/{self._epochs}", num_steps)

    def step_finished(self, report: StepReport) -> None:
        """Move the bar."""
        if self._task is not None:
            share = 100 * report.data_s / report.step_s if report.step_s else 0.0
            self._progress.update(
                self._task,
                completed=report.step + 1,
                details=(
                    f"loss {report.loss:.3f}  lr {report.lr:.1e}  {report.images_per_s:.1f} img/s  "
                    f"waiting for data {share:.0f} %  {_clock(report.eta_s)} left"
                ),
            )

    def evaluation_step_finished(self, step: int, num_steps: int) -> None:
        """Show the evaluation as a bar of its own."""
        if step == 1:
            self._new_task("evaluating", num_steps)
        if self._task is not None:
            self._progress.update(self._task, completed=step)

    def epoch_finished(self, report: EpochReport) -> None:
        """Print the epoch's result."""
        if not self.console.is_terminal:
            return
        stats = report.evaluation.stats
        best = "  [green]best so far[/]" if report.is_best else ""
        self.console.print(
            f"epoch {report.epoch + 1:>3}/{self._epochs}  AP {stats['AP']:.3f}  "
            f"AP50 {stats['AP50']:.3f}  loss {report.train_loss:.3f}  "
            f"val loss {report.evaluation.loss:.3f}  {report.images_per_s:.1f} img/s  "
            f"{_clock(report.train_s + report.eval_s)}{best}",
            highlight=False,
        )
        self.console.print(f"  {report.verdict}", style="dim", highlight=False)
        for name in report.skipped_images:
            self.console.print(f"  image not used: {name}", style="yellow", markup=False)
        if report.skipped_steps:
            self.console.print(f"  {report.skipped_steps} steps skipped", style="yellow")

    def train_finished(self, result: FitResult) -> None:
        """Print what came out."""
        self.close()
        if result.stopped:
            self.console.print(f"\nStopped after epoch {result.last_epoch + 1}: {result.stopped}")
        if result.best is not None:
            self.console.print()
            print_metrics(self.console, result.best, f"Best: epoch {result.best_epoch + 1}")
        if result.confirmed is not None:
            self.console.print(
                f"best.pth loaded again: AP {result.confirmed.stats['AP']:.4f}", highlight=False
            )
        for name, path in result.checkpoints.items():
            self.console.print(f"{name:>15}  {path}", highlight=False, markup=False)

    def close(self) -> None:
        """Remove the bars; safe to call twice."""
        self._progress.stop()

    def _new_task(self, description: str, total: int) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(description, total=total, details="")


def print_metrics(console: Console, evaluation: Evaluation, title: str) -> None:
    """Print metrics of all classes as a table."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("class")
    for name in ("boxes", "AP", "AP50", "best threshold", "F1 there"):
        table.add_column(name, justify="right")
    for c in evaluation.classes:
        table.add_row(
            c.name,
            str(c.num_boxes),
            _number(c.ap),
            _number(c.ap50),
            _number(c.best.threshold),
            _number(c.best.f1),
        )
    stats, best = evaluation.stats, evaluation.best
    table.add_section()
    table.add_row(
        "all",
        str(sum(c.num_boxes for c in evaluation.classes)),
        _number(stats["AP"]),
        _number(stats["AP50"]),
        _number(best.threshold),
        _number(best.f1),
        style="bold",
    )
    console.print(table)


def _number(value: float) -> str:
    return "-" if math.isnan(value) or value < 0 else f"{value:.3f}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
