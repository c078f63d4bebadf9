"""A model that runs out of memory, and a criterion with non-finite results."""

import torch
from torch import nn


class SmallMemory(nn.Module):
    """The real model on a fake device with memory for `limit` images; records the batch sizes."""

    def __init__(self, model, limit, *, fails_in="forward"):
        super().__init__()
        self.network, self.limit, self.fails_in = model, limit, fails_in
        self.seen = []

    def forward(self, images, targets=None):
        self.seen.append(len(images))
        too_many = len(images) > self.limit
        if too_many and self.fails_in == "forward":
            self.network(images, targets=targets)  # changes statistics and random numbers
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        outputs = self.network(images, targets=targets)
        if too_many and self.fails_in == "backward":
            outputs["pred_logits"].register_hook(self._fail)
        return outputs

    def _fail(self, gradient):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")


class NonFiniteCriterion(nn.Module):
    """The real criterion with non-finite outputs or losses in the steps chosen by `is_bad`."""

    def __init__(self, criterion, is_bad, what):
        super().__init__()
        self.criterion, self.is_bad, self.what = criterion, is_bad, what

    def forward(self, outputs, targets, **place):
        is_bad = self.is_bad(place)
        if is_bad and self.what == "outputs":
            outputs["pred_logits"] = outputs["pred_logits"] * torch.nan
        losses = self.criterion(outputs, targets, **place)
        if is_bad and self.what == "loss":
            losses["loss_giou"] = losses["loss_giou"] * torch.inf
        return losses
