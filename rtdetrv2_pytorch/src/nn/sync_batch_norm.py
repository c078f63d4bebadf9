"""Batch norm over the batch of all ranks on a CPU; torch's implementation needs a GPU.

Several ranks train the same model as one process with all of their images. Each layer computes two
sums over the ranks, one for the mean and one for the variance around it. This avoids the
cancellation of a difference of two large sums.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..misc import distributed


class SyncBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with batch statistics over all ranks in training."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize [B, C, H, W]; ranks may have different numbers of images."""
        if not (self.training and distributed.is_distributed()):
            return super().forward(x)
        values = x.float()
        size = values.new_tensor([x.numel() / x.shape[1]])
        sums = _SumOverRanks.apply(torch.cat((values.sum((0, 2, 3)), size)))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centered = values - mean[:, None, None]
        variance = _SumOverRanks.apply(centered.square().sum((0, 2, 3))) / count
        self._update_running_statistics(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centered * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _update_running_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics; `variance` is unbiased."""
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked += 1


class _SumOverRanks(torch.autograd.Function):
    """Sum over the ranks; the gradient is the sum of the gradients of all ranks."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return distributed.sum_over_ranks(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return distributed.sum_over_ranks(gradients[0])


def synchronize_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Make all batch norms of a model use the batch of all ranks.

    Parameters and their names are unchanged; modules may be replaced.
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-any-return]
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d  # same attributes, different forward
    return model
