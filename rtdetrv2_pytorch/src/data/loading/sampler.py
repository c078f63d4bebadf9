"""The order of images in an epoch, as batches of indices."""

import math
from collections.abc import Iterator

import torch

from ...misc import distributed
from ...misc.errors import ConfigError
from ...misc.seeding import derive_seed
from ...misc.text import counted
from .repeats import RepeatedImages


class EpochSampler:
    """Yields batches of indices for one rank.

    The order depends only on (seed, epoch), and iteration can start at any step, so a resumed epoch
    gets exactly the remaining batches. Each batch is divided among the ranks, also unevenly, so
    that together they process the batches of a single process. In training, every rank gets a part
    of every batch. In evaluation, a last batch with fewer images than ranks leaves some without.

    Args:
        num_images: images of the data set.
        total_batch_size: images per batch, over all ranks.
        shuffle: use a new random order every epoch.
        drop_last: drop the last batch if it is smaller.
        seed: of the run.
        repeated: chooses how often each image occurs in a shuffled epoch; default: once.
    """

    def __init__(
        self,
        num_images: int,
        total_batch_size: int,
        *,
        shuffle: bool,
        drop_last: bool,
        seed: int,
        repeated: RepeatedImages | None = None,
    ) -> None:
        self.num_images = num_images if repeated is None else len(repeated)  # of an epoch
        self.repeated = repeated
        self.total_batch_size = total_batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        self.epoch = 0
        self.start_step = 0

    @property
    def batch_size(self) -> int:
        """Largest number of images per batch and rank."""
        return math.ceil(self.total_batch_size / distributed.world_size())

    def set_epoch(self, epoch: int, start_step: int = 0) -> None:
        """Choose the epoch and the first batch."""
        self.epoch = epoch
        self.start_step = start_step

    def _rank_slice(self, batch: int) -> range:
        """Return the positions of a batch, within the order of the epoch, for this rank."""
        first = batch * self.total_batch_size
        size = min(self.total_batch_size, self.num_images - first)
        rank, ranks = distributed.rank(), distributed.world_size()
        return range(first + size * rank // ranks, first + size * (rank + 1) // ranks)

    def __len__(self) -> int:
        full, rest = divmod(self.num_images, self.total_batch_size)
        if self.drop_last or not rest:
            return full
        if self.shuffle:  # training: a batch for all ranks, or none
            return full + (rest >= distributed.world_size())
        return full + (len(self._rank_slice(full)) > 0)

    def __iter__(self) -> Iterator[list[int]]:
        if self.shuffle:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
            order = (
                torch.randperm(self.num_images, generator=generator).tolist()
                if self.repeated is None
                else self.repeated.shuffled(generator)
            )
        else:
            order = list(range(self.num_images))
        for batch in range(self.start_step, len(self)):
            yield [order[place] for place in self._rank_slice(batch)]


def divided_batch_size(per_rank: int, total: int | None, *, is_training: bool) -> int:
    """Return the images per batch over all ranks.

    Raises:
        ConfigError: if a training batch has fewer images than ranks.
    """
    ranks = distributed.world_size()
    if total is None:
        return per_rank * ranks
    if total >= (ranks if is_training else 1):
        return max(total, ranks)  # results of an evaluation do not depend on the batch size
    raise ConfigError(
        f"total_batch_size = {total}: cannot be divided among {counted(ranks, 'rank')}; give at "
        f"least {ranks}, or train on fewer ranks"
    )
