"""Detection of non-finite losses and gradients."""

import logging

import torch
from torch import Tensor, nn

from ..misc.devices import wait_for
from ..misc.errors import TrainingDiverged
from ..misc.text import counted

logger = logging.getLogger(__name__)

_CHECK_EVERY = 50  # optimizer steps between two reads of the counter on the device
_SCALER_PATIENCE = 16  # halvings from the initial loss scale of float16, 65536, to 1


class FiniteGuard:
    """Counts consecutive non-finite steps and restores the running statistics after them.

    Outputs are checked on the host, where the matching copies them anyway. Gradients are counted
    on the device, so that no step waits for the count. The loss is checked on a CPU only: on a GPU
    a non-finite loss is found by its gradients.

    Args:
        model: its floating-point buffers are saved and restored.
        max_skipped_steps: consecutive non-finite steps that end training.
        uses_loss_scale: whether the first gradients may overflow until the loss scale has adapted.
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

    def save_buffers(self) -> None:
        """Copy the running statistics, before a forward pass."""
        if self._buffers:
            torch._foreach_copy_(self._copies, self._buffers)

    def restore_buffers(self) -> None:
        """Restore the running statistics of the last `save_buffers`."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._copies)

    def reset(self) -> None:
        """Clear the counters after a change of precision, which ends loss scaling."""
        self._skipped, self._bad_norms = 0, None
        self._max_bad_norms = self._max_skipped

    def record_skipped(self, error: TrainingDiverged) -> None:
        """Count a step without finite outputs.

        Raises:
            TrainingDiverged: after `max_skipped_steps` consecutive ones.
        """
        self._skipped += 1
        if self._skipped >= self._max_skipped:
            raise TrainingDiverged(
                f"{error} ({counted(self._skipped, 'consecutive step')}; the last good checkpoint "
                "is kept)"
            ) from error
        logger.warning("step skipped, %d in a row: %s", self._skipped, error)

    def record_finite(self) -> None:
        """Count a step with finite outputs."""
        self._skipped = 0

    def record_norm(self, norm: Tensor) -> None:
        """Count the gradient norm of an optimizer step.

        Raises:
            TrainingDiverged: if too many consecutive norms were non-finite.
        """
        before = norm.new_zeros(()) if self._bad_norms is None else self._bad_norms
        self._bad_norms = torch.where(norm.isfinite(), 0.0, before + 1)
        self._watched += 1
        if self._watched % _CHECK_EVERY:
            return
        bad = int(wait_for(self._bad_norms))
        if bad >= self._max_bad_norms:
            raise TrainingDiverged(
                f"gradients were not finite for {counted(bad, 'consecutive step')} although the "
                "losses were; lower the learning rate or clip_max_norm, or train without mixed "
                "precision. The last good checkpoint is kept"
            )
