"""Training events: reports of a training and the classes that follow them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..data.metrics.evaluator import Evaluation


@dataclass(frozen=True)
class TrainingPlan:
    """The resolved settings of a training."""

    epochs: int
    first_epoch: int  # above 0 for a resumed run
    steps_per_epoch: int  # batches
    batch_size: int  # images per optimizer step, over all ranks and accumulated batches
    num_train_images: int
    num_val_images: int
    class_names: Sequence[str]
    image_size_hw: tuple[int, int] | None
    device: str
    precision: str
    output_dir: Path
    schedule: Sequence[str]  # resolved schedule, in lines
    changes: Sequence[str]  # adjusted settings, with the reasons


@dataclass(frozen=True)
class StepReport:
    """State after a training step. If `is_fresh` is False, losses are those of an earlier step."""

    epoch: int
    step: int  # 0-based
    num_steps: int
    global_step: int
    loss: float
    losses: dict[str, float]
    lr: float
    images_per_s: float
    data_s: float  # waiting for the batch, mean of the epoch so far
    step_s: float  # whole step, mean of the epoch so far
    eta_s: float  # until the end of the run, with evaluations
    grad_norm: float
    is_fresh: bool  # loss, losses and grad_norm are of this step
    is_logged: bool  # one of every `print_freq`


@dataclass(frozen=True)
class EpochReport:
    """A finished epoch with its evaluation, if it had one (`eval_freq`)."""

    epoch: int
    train_loss: float
    train_losses: dict[str, float]
    evaluation: Evaluation | None
    is_best: bool
    best_epoch: int
    best_ap: float
    lr: float
    train_s: float
    eval_s: float  # 0 without an evaluation
    data_s: float  # mean wait per step
    step_s: float  # mean step
    images_per_s: float
    skipped_steps: int
    skipped_images: Sequence[str] = ()
    time_shares: Mapping[str, float] = field(default_factory=dict)  # 0..1 by stopwatch.SECTIONS
    bottleneck: str = ""  # with a remedy; "verdict" in log.jsonl
    eta_s: float = 0.0  # until the end of the run, with evaluations

    def as_log(self) -> dict[str, Any]:
        """Return the values of the epoch under their names in log.jsonl."""
        content = {k: v for k, v in vars(self).items() if k not in ("evaluation", "bottleneck")}
        measured = {} if self.evaluation is None else self.evaluation.as_dict()
        return {**content, "verdict": self.bottleneck, **measured}


@dataclass(frozen=True)
class FitResult:
    """The result of a training."""

    best_epoch: int  # -1 if there is none
    best: Evaluation | None
    confirmed: Evaluation | None  # of best.pth after loading it
    last_epoch: int  # the last finished epoch
    stopped: str | None  # reason of an early end
    checkpoints: dict[str, Path] = field(default_factory=dict)  # "best", "last", "0004", ...


class TrainingEvents:
    """Follows a training. Every method does nothing; subclasses override those that they need.

    The solver calls the methods on the main rank only.
    """

    def train_started(self, plan: TrainingPlan) -> None:
        """Handle the start of the training."""

    def epoch_started(self, epoch: int, num_steps: int) -> None:
        """Handle the start of an epoch."""

    def step_finished(self, report: StepReport) -> None:
        """Handle the end of a training step."""

    def evaluation_step_finished(self, step: int, num_steps: int) -> None:
        """Handle the end of a validation batch."""

    def epoch_finished(self, report: EpochReport) -> None:
        """Handle the end of an epoch and of its evaluation, if it had one."""

    def train_finished(self, result: FitResult) -> None:
        """Handle the end of the training, complete or stopped; not called after an error."""


class EventRelay(TrainingEvents):
    """Passes every event to one function.

    Args:
        send: called with the name of the method and its arguments.
    """

    def __init__(self, send: Callable[..., None]) -> None:
        for name in vars(TrainingEvents):
            if not name.startswith("_"):
                setattr(self, name, partial(send, name))


class FanOut(EventRelay):
    """Passes every event to several followers, in order."""

    def __init__(self, followers: Sequence[TrainingEvents]) -> None:
        self.followers = list(followers)
        super().__init__(self._call_all)

    def _call_all(self, name: str, *arguments: Any) -> None:
        for follower in self.followers:
            getattr(follower, name)(*arguments)
