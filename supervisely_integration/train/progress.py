"""Events of a training -> bars of the app's page, and lines for its log window."""

import logging
from collections.abc import Iterable
from typing import Protocol

from rtdetrv2_pytorch.src.solver.events import (
    EpochReport,
    FitResult,
    StepReport,
    TrainingEvents,
    TrainingPlan,
)

logger = logging.getLogger(__name__)

_OURS = ("rtdetrv2_pytorch", "supervisely_integration")


class TrainLogger(Protocol):
    """The part of the SDK's `train_logger` that moves the bars."""

    def train_started(self, total_epochs: int) -> None:
        """Show the bar of epochs."""

    def epoch_started(self, total_steps: int) -> None:
        """Show a new bar of steps."""

    def step_finished(self) -> None:
        """Move the bar of steps by one."""

    def epoch_finished(self) -> None:
        """Move the bar of epochs by one."""

    def train_finished(self) -> None:
        """Hide both."""


class AppProgress(TrainingEvents):
    """Moves the bars of the app and says in words how the training goes.

    The SDK's bars only count, from 0; a training that goes on somewhere in the middle first moves
    them to where it stands.

    Args:
        train_logger: `supervisely.nn.training.train_logger`.
    """

    def __init__(self, train_logger: TrainLogger) -> None:
        self._bars = train_logger
        self._epochs = 0
        self._steps_shown = 0
        self._eta_s = 0.0
        self._is_running = False

    def train_started(self, plan: TrainingPlan) -> None:
        """Show where the training begins."""
        self._epochs = plan.epochs
        self._is_running = True
        self._bars.train_started(plan.epochs)
        for _ in range(plan.first_epoch):
            self._bars.epoch_finished()
        if plan.first_epoch:
            logger.info("Going on after epoch %d of %d", plan.first_epoch, plan.epochs)
        logger.info(
            "Training on %d images, validating on %d, %d classes, on %s in %s",
            plan.num_train_images,
            plan.num_val_images,
            len(plan.class_names),
            plan.device,
            plan.precision,
        )

    def epoch_started(self, epoch: int, num_steps: int) -> None:
        """Begin a bar of steps."""
        self._steps_shown = 0
        self._bars.epoch_started(num_steps)

    def step_finished(self, report: StepReport) -> None:
        """Move to the step, whichever was the first of this epoch."""
        while self._steps_shown <= report.step:
            self._steps_shown += 1
            self._bars.step_finished()
        self._eta_s = report.eta_s

    def epoch_finished(self, report: EpochReport) -> None:
        """Say how good the epoch was."""
        self._bars.epoch_finished()
        is_last = report.epoch + 1 >= self._epochs
        logger.info(
            "Epoch %d/%d: loss %.3f, validation loss %.3f, AP %.3f, %s, %.1f images/s%s",
            report.epoch + 1,
            self._epochs,
            report.train_loss,
            report.evaluation.loss,
            report.evaluation.stats["AP"],
            "the best so far"
            if report.is_best
            else f"best {report.best_ap:.3f} in epoch {report.best_epoch + 1}",
            report.images_per_s,
            "" if is_last else f", about {_duration(self._eta_s)} left",
        )

    def train_finished(self, result: FitResult) -> None:
        """Hide the bars, and say how it ended."""
        self.close()
        trained = f"{result.last_epoch + 1} of {self._epochs} epochs"
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
        """Hide the bars if they are still shown, as after an error."""
        if self._is_running:
            self._is_running = False
            self._bars.train_finished()


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{max(seconds, 0):.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def show_logs(handlers: Iterable[logging.Handler]) -> None:
    """Send the log of the engine and of the apps to these handlers, once each.

    The page's log window shows what the SDK's logger writes, and libraries have no handlers of
    their own: call `show_logs(supervisely.logger.handlers)` when the app starts.
    """
    chosen = list(handlers)
    for name in _OURS:
        ours = logging.getLogger(name)
        ours.setLevel(min(ours.getEffectiveLevel(), logging.INFO))
        for handler in chosen:
            if handler not in ours.handlers:
                ours.addHandler(handler)
        ours.propagate = False  # the root logger would write every line a second time
