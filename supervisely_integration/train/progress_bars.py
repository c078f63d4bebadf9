"""Training events as progress bars on the app's page and lines in its log."""

import logging
from collections.abc import Sequence
from typing import Any, Protocol

from rtdetrv2_pytorch.src.misc.text import counted
from rtdetrv2_pytorch.src.solver.events import (
    EpochReport,
    FitResult,
    StepReport,
    TrainingEvents,
    TrainingPlan,
)

from .plan.estimate import format_minutes

logger = logging.getLogger(__name__)


class BarWidget(Protocol):
    """The part of the SDK's `Progress` widget that is used here."""

    def __call__(self, *, message: str, total: int) -> Any:
        """Start a new tqdm bar in the widget."""

    def show(self) -> None:
        """Show the widget."""

    def hide(self) -> None:
        """Hide the widget."""


class AppProgress(TrainingEvents):
    """Shows epochs and steps as bars, and logs a summary of every epoch.

    Args:
        epochs_widget: for the bar of epochs.
        steps_widget: for the bar of steps.
        next_steps: after the training, which the remaining time does not include.
    """

    def __init__(
        self, epochs_widget: BarWidget, steps_widget: BarWidget, next_steps: Sequence[str] = ()
    ) -> None:
        self._next = ", ".join(next_steps).replace("_", " ")
        self._widgets = (epochs_widget, steps_widget)
        self._bars: list[Any] = []  # of epochs and, within an epoch, of steps
        self._epochs = 0

    def train_started(self, plan: TrainingPlan) -> None:
        """Show the bar of epochs, at the epoch that the training resumes from."""
        self._epochs = plan.epochs
        self._start_bar("Epochs", plan.epochs).update(plan.first_epoch)
        if plan.first_epoch:
            logger.info("Resuming after epoch %d of %d", plan.first_epoch, plan.epochs)
        logger.info(
            "Training on %s, validating on %d, %s, on %s in %s",
            counted(plan.num_train_images, "image"),
            plan.num_val_images,
            counted(len(plan.class_names), "class"),
            plan.device,
            plan.precision,
        )

    def epoch_started(self, epoch: int, num_steps: int) -> None:
        """Show a new bar of steps."""
        self._close_steps()
        self._start_bar("Steps", num_steps)

    def step_finished(self, report: StepReport) -> None:
        """Update the bar of steps; a resumed epoch starts in its middle."""
        bar = self._bars[-1]
        bar.update(report.step + 1 - bar.n)

    def epoch_finished(self, report: EpochReport) -> None:
        """Update the bar of epochs, and log the epoch."""
        self._bars[0].update(1)
        is_last = report.epoch + 1 >= self._epochs
        logger.info(
            "Epoch %d/%d: loss %.3f, %s%.1f images/s%s",
            report.epoch + 1,
            self._epochs,
            report.train_loss,
            _metrics(report),
            report.images_per_s,
            "" if is_last else f", {self._remaining(report.eta_s)}",
        )

    def train_finished(self, result: FitResult) -> None:
        """Hide the bars, and log the result."""
        self.close()
        trained = f"{result.last_epoch + 1} of {counted(self._epochs, 'epoch')}"
        if result.stopped:
            logger.info("Training stopped after %s: %s", trained, result.stopped)
        else:
            logger.info("Training finished: %s", trained)
        if result.best is not None:
            logger.info(
                "Best AP %.3f (AP50 %.3f) in epoch %d",
                result.best.stats["AP"],
                result.best.stats["AP50"],
                result.best_epoch + 1,
            )

    def close(self) -> None:
        """Hide the bars that are still shown, as after an error."""
        for bar, widget in zip(self._bars, self._widgets, strict=False):
            bar.close()
            widget.hide()
        self._bars = []

    def _remaining(self, seconds: float) -> str:
        """Return the remaining time, and what it leaves out: no speed of an upload is known yet."""
        after = f", then {self._next}" if self._next else ""
        return f"about {format_minutes(seconds)} of training and evaluation{after}"

    def _start_bar(self, message: str, total: int) -> Any:
        widget = self._widgets[len(self._bars)]
        widget.show()
        self._bars.append(widget(message=message, total=total))
        return self._bars[-1]

    def _close_steps(self) -> None:
        for bar in self._bars[1:]:
            bar.close()
        del self._bars[1:]


def _metrics(report: EpochReport) -> str:
    """Return the metrics of an evaluated epoch."""
    evaluation = report.evaluation
    if evaluation is None:
        return ""
    stats = evaluation.stats
    coco = f" ({stats['AP_coco']:.3f} with COCO's limit)" if "AP_coco" in stats else ""
    best = f"best {report.best_ap:.3f} in epoch {report.best_epoch + 1}"
    return (
        f"validation loss {evaluation.loss:.3f}, AP {stats['AP']:.3f}{coco}, "
        f"{'the best so far' if report.is_best else best}, "
    )
