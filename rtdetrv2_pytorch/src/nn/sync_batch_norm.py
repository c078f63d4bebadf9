"""Batch norm over the batch of all ranks, on a CPU; torch's own needs a GPU.

Several ranks then train as one process would with all of their images. Two sums over the ranks
a layer: one for the mean and, around it, one for the variance, which is exact where the difference
of two large sums is not.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..misc import distributed


class SyncBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose batch statistics in training are those of all ranks together."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, C, H, W]; ranks may have different numbers of images."""
        if not (self.training and distributed.is_distributed()):
            return super().forward(x)
        values = x.float()
        size = values.new_tensor([x.numel() / x.shape[1]])
        sums = _SumOverRanks.apply(torch.cat((values.sum((0, 2, 3)), size)))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = values - mean[:, None, None]
        variance = _SumOverRanks.apply(centred.square().sum((0, 2, 3))) / count
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics; `variance` is that of a sample."""
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked += 1


class _SumOverRanks(torch.autograd.Function):
    """A sum over the ranks; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return distributed.sum_over_ranks(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return distributed.sum_over_ranks(gradients[0])


def synchronize_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Let every batch norm of a model use the batch of all ranks.

    Parameters and their names stay; modules may become others.
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-any-return]
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d  # it only computes otherwise
    return model
