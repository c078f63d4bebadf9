"""The order of an epoch: batches of indices that follow from (seed, epoch), from any step on."""

import math
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from ...misc import distributed
from ...misc.errors import ConfigError
from ...misc.seeding import derive_seed


class EpochSampler(Sampler[list[int]]):
    """Batches of indices for one rank.

    The order of an epoch follows from (seed, epoch) alone, and iteration can begin at any step:
    a resumed epoch sees exactly the batches that are left. A batch is cut out of that order and
    divided among the ranks, so that they see together what one process would see, also where it
    cannot be divided evenly. In training, every rank gets a part of every batch; in evaluation
    the last batch may be too small for that, and every image goes to exactly one rank.

    Args:
        num_images: images of the data set.
        total_batch_size: images per batch, over all ranks.
        shuffle: draw a new order every epoch.
        drop_last: leave out what does not fill a batch.
        seed: of the run.
    """

    def __init__(
        self, num_images: int, total_batch_size: int, *, shuffle: bool, drop_last: bool, seed: int
    ) -> None:
        self.num_images = num_images
        self.total_batch_size = total_batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        self.epoch = 0
        self.start_step = 0

    @property
    def batch_size(self) -> int:
        """Images of the largest part that a rank can get."""
        return math.ceil(self.total_batch_size / distributed.world_size())

    def set_epoch(self, epoch: int, start_step: int = 0) -> None:
        """Choose the epoch, and the batch to begin with."""
        self.epoch = epoch
        self.start_step = start_step

    def _part(self, batch: int) -> range:
        """Places in the order of the epoch that are this rank's in a batch."""
        first = batch * self.total_batch_size
        size = min(self.total_batch_size, self.num_images - first)
        rank, ranks = distributed.rank(), distributed.world_size()
        return range(first + size * rank // ranks, first + size * (rank + 1) // ranks)

    def __len__(self) -> int:
        full, rest = divmod(self.num_images, self.total_batch_size)
        if self.drop_last or not rest:
            return full
        if self.shuffle:  # training: all ranks or none
            return full + (rest >= distributed.world_size())
        return full + (len(self._part(full)) > 0)

    def __iter__(self) -> Iterator[list[int]]:
        if self.shuffle:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
            order = torch.randperm(self.num_images, generator=generator).tolist()
        else:
            order = list(range(self.num_images))
        # The range is made now, not with the first batch: `start_step` may change until then.
        return (
            [order[place] for place in self._part(batch)]
            for batch in range(self.start_step, len(self))
        )


def divided_batch_size(per_rank: int, total: int | None, *, is_training: bool) -> int:
    """Images per batch over all ranks.

    Raises:
        ConfigError: if a batch for training has not one image for each.
    """
    ranks = distributed.world_size()
    if total is None:
        return per_rank * ranks
    if total >= (ranks if is_training else 1):
        return max(total, ranks)  # in evaluation the size of batches changes nothing
    raise ConfigError(
        f"total_batch_size = {total}: cannot be divided among {ranks} ranks; give at least "
        f"{ranks}, or train on fewer ranks"
    )
