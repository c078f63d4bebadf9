"""Keeps numbers that are not finite out of the weights, and ends training when they go on."""

import logging

import torch
from torch import Tensor, nn

from ..misc.errors import TrainingDiverged
from ..misc.transfers import wait_for

logger = logging.getLogger(__name__)

_CHECK_EVERY = 50  # optimizer steps between two looks at a count that lives on the device
_SCALER_PATIENCE = 16  # halvings that bring float16's first loss scale, 65536, to 1


class FiniteGuard:
    """Counts bad steps in a row and puts back what a bad step spoiled.

    Outputs are checked on the host, where the matching brings them anyway; gradients are watched on
    the device, so that a step never waits for this. The loss itself is asked for on a CPU only: on
    a GPU, what makes it no number shows in the gradients.

    Args:
        model: whose running statistics a bad forward pass would spoil for good.
        max_skipped_steps: bad steps in a row after which training ends.
        uses_loss_scale: float16: the first gradients overflow until the scale has come down.
    """

    def __init__(
        self, model: nn.Module, *, max_skipped_steps: int, uses_loss_scale: bool = False
    ) -> None:
        self._max_skipped = max_skipped_steps
        self._max_bad_norms = max_skipped_steps + (_SCALER_PATIENCE if uses_loss_scale else 0)
        self._buffers = [b for b in model.buffers() if b.is_floating_point()]
        self._copies = [b.clone() for b in self._buffers]
        self._skipped = 0
        self._bad_norms: Tensor | None = None
        self._watched = 0

    def remember(self) -> None:
        """Copy the running statistics, before a forward pass."""
        if self._buffers:
            torch._foreach_copy_(self._copies, self._buffers)

    def restore(self) -> None:
        """Put the running statistics back to what they were."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._copies)

    def start_anew(self) -> None:
        """Forget bad steps, because from now on there is no loss scale, or none is needed."""
        self._skipped, self._bad_norms = 0, None
        self._max_bad_norms = self._max_skipped

    def skip(self, error: TrainingDiverged) -> None:
        """Note a step without finite outputs.

        Raises:
            TrainingDiverged: if there were too many in a row.
        """
        self._skipped += 1
        if self._skipped >= self._max_skipped:
            raise TrainingDiverged(
                f"{error} (for {self._skipped} steps in a row; the last good checkpoint is kept)"
            ) from error
        logger.warning("step skipped, %d in a row: %s", self._skipped, error)

    def passed(self) -> None:
        """Note a step with finite outputs."""
        self._skipped = 0

    def watch(self, norm: Tensor) -> None:
        """Note the norm of an optimizer step's gradients.

        Raises:
            TrainingDiverged: if too many in a row were not finite.
        """
        before = norm.new_zeros(()) if self._bad_norms is None else self._bad_norms
        self._bad_norms = torch.where(norm.isfinite(), 0.0, before + 1)
        self._watched += 1
        if self._watched % _CHECK_EVERY:
            return
        bad = int(wait_for(self._bad_norms))
        if bad >= self._max_bad_norms:
            raise TrainingDiverged(
                f"gradients were not finite for {bad} steps in a row, while the "
                "losses were; lower the learning rate or clip_max_norm, or train without mixed "
                "precision. The last good checkpoint is kept"
            )
