"""Batches of a data set, loaded by worker processes."""

import logging
import os
from collections.abc import Iterator
from typing import Literal

import torch

from ...misc import distributed
from ...misc.errors import DatasetError
from ...misc.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt
from ...misc.text import counted
from ..dataset import DetectionDataset
from .collate import Batch, BatchImageCollateFunction
from .pinning import pin_ahead
from .repeats import RepeatedImages, repeat_factors
from .sampler import EpochSampler, divided_batch_size
from .worker_pool import StartMethod, WorkerPool, WorkersUnavailableError, load_batch

logger = logging.getLogger(__name__)


class DataLoader:
    """Loads batches with worker processes that live as long as the loader.

    A worker that crashes is replaced and its batches are loaded again. Batches depend only on their
    position, so the result is the same. After repeated crashes, or if batches cannot be sent
    between processes, the main process loads them itself.

    Args:
        dataset: what to load.
        batch_size: images per batch and rank.
        total_batch_size: images per batch over all ranks, however many there are; replaces
            `batch_size`.
        shuffle: use a new random order every epoch.
        num_workers: worker processes; 0 loads in the main one.
        collate_fn: items -> batch.
        pin_memory: copy images to page-locked memory, from which transfers to a GPU overlap with
            computation; default: with a GPU.
        drop_last: drop the last batch if it is smaller.
        timeout: seconds to wait for a batch of the workers; 0: unlimited.
        prefetch_factor: batches that each worker prepares ahead; default: 2.
        persistent_workers: keep the workers between epochs.
        sampler: not supported; kept for existing YAML files.
        batch_sampler: not supported; kept for existing YAML files.
        worker_init_fn: not supported; kept for existing YAML files.
        multiprocessing_context: how workers are started.
        generator: not supported; kept for existing YAML files.
        pin_memory_device: kept for existing YAML files.
        in_order: keep the order of batches.
        seed: of the run.
        repeat_threshold: of the run.

    Raises:
        DatasetError: if there are too few images for a batch; in iteration, if a batch takes longer
            than `timeout`.
    """

    def __init__(
        self,
        *,
        dataset: DetectionDataset,
        batch_size: PositiveInt = 1,
        total_batch_size: PositiveInt | None = None,
        shuffle: bool | None = None,
        sampler: None = None,
        batch_sampler: None = None,
        num_workers: NonNegativeInt = 0,
        collate_fn: BatchImageCollateFunction | None = None,
        pin_memory: bool | None = None,
        drop_last: bool = False,
        timeout: NonNegativeFloat = 0,
        worker_init_fn: None = None,
        multiprocessing_context: StartMethod | None = None,
        generator: None = None,
        prefetch_factor: PositiveInt | None = None,
        persistent_workers: bool = True,
        pin_memory_device: Literal[""] = "",
        in_order: bool = True,
        seed: int = 0,
        repeat_threshold: NonNegativeFloat = 0.0,
    ) -> None:
        self.dataset = dataset
        self.collate_fn = collate_fn or BatchImageCollateFunction()
        self.epoch_sampler = EpochSampler(
            len(dataset),
            divided_batch_size(batch_size, total_batch_size, is_training=bool(shuffle)),
            shuffle=bool(shuffle),
            drop_last=drop_last,
            seed=seed,
            repeated=RepeatedImages(repeat_factors(dataset.annotations, repeat_threshold))
            if repeat_threshold
            else None,
        )
        if len(self.epoch_sampler) == 0 and (shuffle or drop_last or not len(dataset)):
            raise DatasetError(
                f"no batch of {self.epoch_sampler.total_batch_size} can be made from "
                f"{counted(len(dataset), 'image')} for "
                f"{counted(distributed.world_size(), 'rank')}; use a smaller batch_size or add "
                "images"
            )
        self.batch_size = self.epoch_sampler.batch_size
        self.drop_last = drop_last
        self.num_workers = min(num_workers, os.cpu_count() or 1)
        self.prefetch_factor = prefetch_factor or 2
        self.persistent_workers = persistent_workers
        self.pin_memory = torch.cuda.is_available() and pin_memory is not False
        self.timeout = timeout
        self.in_order = in_order
        self.multiprocessing_context = multiprocessing_context
        self._workers: WorkerPool | None = None

    def set_epoch(self, epoch: int, start_step: int = 0) -> None:
        """Choose order and augmentations of an epoch, and the batch to begin with."""
        self.dataset.set_epoch(epoch)
        self.epoch_sampler.set_epoch(epoch, start_step)

    def __len__(self) -> int:
        return len(self.epoch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        batches = self._load(list(self.epoch_sampler))
        return pin_ahead(batches) if self.pin_memory else batches

    def _load(self, batches: list[list[int]]) -> Iterator[Batch]:
        remaining = dict(enumerate(batches))
        try:
            if self.num_workers:
                self._workers = self._workers or WorkerPool(
                    self.dataset,
                    self.collate_fn,
                    num_workers=self.num_workers,
                    prefetch_factor=self.prefetch_factor,
                    timeout=self.timeout,
                    in_order=self.in_order,
                    start_method=self.multiprocessing_context,
                )
                for number, batch in self._workers.load(batches):
                    del remaining[number]
                    yield batch
        except WorkersUnavailableError as error:
            logger.warning("%s. The main process now loads images, which is slower", error)
            self.num_workers = 0
        finally:
            if self._workers is not None and not (self.num_workers and self.persistent_workers):
                self._workers.close()
                self._workers = None
        for indices in remaining.values():
            yield load_batch(self.dataset, self.collate_fn, indices)
