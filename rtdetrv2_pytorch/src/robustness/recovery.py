"""Recovery of a training step from out-of-memory errors and non-finite losses."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..misc import distributed
from ..misc.errors import TrainingDiverged
from ..structures import StepBatch, Target
from .bad_batches import BadBatches
from .guard import FiniteGuard
from .memory import MicroBatches
from .precision import MixedPrecision, Precision

logger = logging.getLogger(__name__)


class NonFiniteLoss(TrainingDiverged):
    """The loss of a batch is NaN or infinite.

    Args:
        message: the error message.
        losses: the loss terms.
    """

    def __init__(self, message: str, losses: Mapping[str, float]) -> None:
        super().__init__(message)
        self.losses = losses


class Recovery:
    """Repeats or skips training steps that fail.

    After an out-of-memory error, the gradients of all batches since the last optimizer step are
    computed again, in smaller micro-batches and with the same random numbers. A batch with a
    non-finite loss is skipped together with its accumulation group. After too many of them,
    training falls back to a more exact precision.

    Args:
        optimizer: holds the gradients that are discarded.
        amp: precision of the run; replaced on fallback.
        guard: counts non-finite steps.
        micro_batches: division of the batches.
        bad_batches: writes descriptions of skipped batches; None: no descriptions.
    """

    def __init__(
        self,
        *,
        optimizer: Optimizer,
        amp: MixedPrecision,
        guard: FiniteGuard,
        micro_batches: MicroBatches,
        bad_batches: BadBatches | None,
    ) -> None:
        self.optimizer = optimizer
        self.amp = amp
        self.guard = guard
        self.micro_batches = micro_batches
        self.bad_batches = bad_batches
        self._group: list[StepBatch] = []  # since the last optimizer step
        self._is_non_finite = False  # whether this rank made the gradients of all ranks non-finite

    def for_probe(self) -> "Recovery":
        """Return a recovery for steps that are computed before training and discarded."""
        return Recovery(
            optimizer=self.optimizer,
            amp=self.amp,
            guard=self.guard,
            micro_batches=MicroBatches(),
            bad_batches=None,
        )

    def accumulate(
        self, batch: StepBatch, backward: Callable[[StepBatch], dict[str, Tensor]]
    ) -> dict[str, Tensor] | None:
        """Add the gradients of a batch to those of its accumulation group.

        Args:
            batch: the batch to compute.
            backward: computes the gradients of a batch and returns its loss terms.

        Returns:
            The loss terms; None if the group was discarded. Empty if the step is skipped on
            several ranks: the gradients are NaN on all of them, and the scaler skips the
            optimizer step.

        Raises:
            OutOfMemory: if the batch cannot be computed in smaller micro-batches.
            TrainingDiverged: if too many consecutive losses are non-finite in float32.
        """
        if not self._group:
            self.guard.save_buffers()
        self._group.append(batch)
        self._is_non_finite = False
        pending = [batch]

        def compute() -> dict[str, Tensor]:
            for one in pending:
                losses = backward(one)
            return losses

        def undo() -> None:
            self.discard_gradients()
            pending[:] = self._group

        try:
            losses = self.micro_batches.retry(compute, len(batch.targets), undo=undo)
        except TrainingDiverged as error:
            self._describe(batch, error)
            self.discard_gradients()
            self._group.clear()
            try:
                self.guard.record_skipped(error)
            except TrainingDiverged as final:
                self._fall_back(final)
            return None
        if self._is_non_finite:
            self.guard.restore_buffers()  # not before: the backward pass needs the statistics
            return {}
        self.guard.record_finite()
        return losses

    def finite_loss(
        self,
        batch: StepBatch,
        targets: Sequence[Target],
        outputs: Mapping[str, Any],
        compute: Callable[[], dict[str, Tensor]],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a micro-batch and check it.

        Args:
            batch: the batch.
            targets: targets of the micro-batch.
            outputs: outputs of the model.
            compute: returns the loss terms.

        Returns:
            The loss and its terms. With several ranks, a NaN loss and no terms if the loss is
            non-finite: the other ranks wait for the gradients of this one.

        Raises:
            TrainingDiverged: if outputs or loss are non-finite and there is one rank.
        """
        try:
            losses = compute()
            loss: Tensor = sum(losses.values())  # type: ignore[assignment]
            _check_finite(loss, losses, batch, targets)
        except TrainingDiverged as error:
            if not distributed.is_distributed():
                raise
            self._describe(batch, error)
            logger.warning("step skipped on all ranks: %s", error)
            self._is_non_finite = True
            return _nan_loss(outputs), {}
        return loss, losses

    def finish_step(self, grad_norm: Tensor) -> None:
        """End an accumulation group after its optimizer step.

        Raises:
            TrainingDiverged: if too many consecutive gradients are non-finite in float32.
        """
        self._group.clear()
        try:
            self.guard.record_norm(grad_norm)
        except TrainingDiverged as error:
            self._fall_back(error)

    def discard_gradients(self) -> None:
        """Reset the gradients and running statistics to those after the last optimizer step."""
        self.optimizer.zero_grad(set_to_none=True)
        self.guard.restore_buffers()

    def use_precision(self, precision: Precision) -> None:
        """Replace the configured precision for the rest of the run."""
        self.amp.fall_back_to(precision)
        self.guard.reset()

    def _fall_back(self, error: TrainingDiverged) -> None:
        """Fall back to a more exact precision; raise the error if there is none."""
        better = self.amp.precision.fallback(self.amp.device)
        if better is None:
            raise error
        logger.warning("%s; falling back from %s to %s", error, self.amp.precision, better)
        self.use_precision(better)

    def _describe(self, batch: StepBatch, error: TrainingDiverged) -> None:
        if self.bad_batches is not None:
            losses = getattr(error, "losses", {})
            precision = str(self.amp.precision)
            self.bad_batches.write(batch, error, losses=losses, precision=precision)


def _check_finite(
    loss: Tensor, losses: Mapping[str, Tensor], batch: StepBatch, targets: Sequence[Target]
) -> None:
    """Raise on a non-finite loss on a CPU; on a GPU, `FiniteGuard` finds it by the gradients."""
    if loss.device.type != "cpu" or bool(loss.isfinite()):
        return
    terms = {name: float(value.detach()) for name, value in losses.items()}
    ids = [int(t["image_id"]) for t in targets]
    raise NonFiniteLoss(
        f"epoch {batch.epoch + 1}, step {batch.global_step + 1}: the loss is not finite for images "
        f"with ids {ids}; inspect these images and their boxes, lower the learning rate, or train "
        "without mixed precision",
        terms,
    )


def _nan_loss(outputs: Mapping[str, Any]) -> Tensor:
    """Return a loss that makes all gradients NaN."""
    sums = [t.float().sum() for t in _tensors(outputs)]
    return torch.stack(sums).sum() * torch.nan


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield all tensors with gradients in nested outputs."""
    if isinstance(value, Tensor):
        if value.requires_grad:
            yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
