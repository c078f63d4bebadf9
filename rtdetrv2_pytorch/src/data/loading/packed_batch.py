"""A batch on its way from a worker to the main process: few tensors, whatever it holds.

Every tensor costs a file descriptor, a connection and a mapping, and one for each value of each
image are more than a hundred. So few make a short message, too: one of up to PIPE_BUF bytes is
written whole or not at all (pipe(7)), and a worker that is killed leaves no half of one, for whose
rest the main process would wait for ever.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from ...structures import Target
from .collate import Batch


class PackedBatch(NamedTuple):
    """A batch whose targets are one table; a tuple, so that torch can pin its memory."""

    images: Tensor  # [B, 3, H, W] uint8
    rows: Tensor  # [V, B] int64: rows of each value that are an image's, in the order of `values`
    values: dict[str, Tensor]  # V of them: those of all images, one after another

    @classmethod
    def of(cls, images: Tensor, targets: Sequence[Target]) -> "PackedBatch":
        """Move a batch into shared memory.

        Raises:
            RuntimeError: if there is too little of it.
        """
        columns: dict[str, list[Tensor]] = {}
        for target in targets:
            for name, value in cast(dict[str, Tensor], target).items():
                columns.setdefault(name, []).append(value)
        rows = torch.tensor([[len(v) for v in column] for column in columns.values()])
        return cls(
            images.share_memory_(),
            rows.share_memory_(),
            {name: torch.cat(column).share_memory_() for name, column in columns.items()},
        )

    def unpack(self) -> Batch:
        """The batch as the collate function made it; targets are views of the tables."""
        columns = [
            value.split(rows)
            for rows, value in zip(self.rows.tolist(), self.values.values(), strict=True)
        ]
        targets = [dict(zip(self.values, row, strict=True)) for row in zip(*columns, strict=True)]
        return self.images, cast(list[Target], targets)
