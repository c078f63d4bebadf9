"""Images saved during training: augmented batches, and validation detections by epoch."""

import contextlib
import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..core.yaml_config import YAMLConfig
from ..data.loading.collate import resize_batch
from ..data.metrics.evaluator import Evaluation
from ..misc.drawing import box_shape
from ..misc.errors import ConfigError, DatasetError
from ..misc.text import printable
from ..solver.events import EpochReport, TrainingEvents, TrainingPlan
from ..structures import Target
from .augmentation_sheet import augmentation_sheet
from .cells import arranged, cell, class_color, normalized_shapes
from .snapshots import PICTURES, SHEET_NAME, TRAIN_NAME, VAL_NAME, remove_snapshots

logger = logging.getLogger(__name__)

_NUM_BATCHES = 2
_BATCH_IMAGES, _BATCH_COLUMNS = 8, 4
_VAL_IMAGES, _VAL_COLUMNS = 6, 3
_MAX_VAL_EPOCHS = 20  # epochs whose validation images are saved, evenly over the run
_MAX_BOXES = 50  # per image
_DEFAULT_THRESHOLD = 0.5  # while F1 is 0, so that no threshold is the best
_JPEG_QUALITY = 80
_ANNOTATION_COLOR = (255, 255, 255)


class TrainingImages(TrainingEvents):
    """Save images to the run's `pictures` directory and to TensorBoard.

    After an error the follower logs a warning and saves no more images; training continues.

    Sampling and augmentation are functions of (seed, epoch, step, image), so loading the first
    batches a second time yields the pixels that the network receives.

    Args:
        cfg: configuration of the run; `pictures: false` disables the follower.
        on_image: called with the tag, the file and the epoch, from 1, of each image.
    """

    def __init__(
        self, cfg: YAMLConfig, *, on_image: Callable[[str, Path, int], None] | None = None
    ) -> None:
        self._cfg = cfg
        self._on_image = on_image
        self._folder = cfg.output_dir / PICTURES
        self._epochs = 0
        self._every = 1  # epochs between two saved images
        self._place = -1  # of the last saved images, in units of `_every`
        self._is_enabled = cfg.settings.pictures

    def train_started(self, plan: TrainingPlan) -> None:
        """Save the first batches of the first epoch."""
        self._epochs = plan.epochs
        self._every = max(1, math.ceil(plan.epochs / _MAX_VAL_EPOCHS))
        self._place = plan.first_epoch // self._every if plan.first_epoch else -1

        def save() -> None:
            self._folder.mkdir(parents=True, exist_ok=True)
            remove_snapshots(self._folder, plan.first_epoch)
            for number, (images, targets) in enumerate(self._first_batches(plan.first_epoch)):
                name = TRAIN_NAME.format(epoch=plan.first_epoch, batch=number)
                names = self._cfg.train_dataset.categories.names
                cells = [
                    cell(
                        _to_uint8(image),
                        normalized_shapes(target["boxes"].numpy(), target["labels"], image, names),
                    )
                    for image, target in zip(images, targets, strict=True)
                ]
                self._save(name, f"train/batch_{number}", cells, _BATCH_COLUMNS, plan.first_epoch)

        if plan.first_epoch < plan.epochs:
            self._guarded(save)
        if plan.first_epoch == 0:
            self._guarded(self._save_presets)

    def epoch_finished(self, report: EpochReport) -> None:
        """Save the same validation images after evaluated epochs, with the current detections."""
        epoch, evaluation = report.epoch, report.evaluation
        place = (epoch + 1) // self._every
        if evaluation is None or (place == self._place and epoch + 1 < self._epochs):
            return
        self._place = place

        def save() -> None:
            cells = list(self._val_cells(evaluation))
            if cells:
                self._save(
                    VAL_NAME.format(epoch=epoch), "val/detections", cells, _VAL_COLUMNS, epoch
                )

        self._guarded(save)

    def _save_presets(self) -> None:
        """Save the augmentation presets on training images, to compare them."""
        try:
            sheet = augmentation_sheet(self._cfg)
        except ConfigError as error:
            logger.debug("augmentation presets not drawn: %s", error)
        else:
            sheet.save(self._folder / SHEET_NAME, quality=_JPEG_QUALITY)

    def _first_batches(self, epoch: int) -> Iterator[tuple[Tensor, Sequence[Target]]]:
        loader, dataset = self._cfg.train_dataloader, self._cfg.train_dataset
        loader.set_epoch(epoch)
        for step, indices in enumerate(itertools.islice(loader.epoch_sampler, _NUM_BATCHES)):
            images, targets = loader.collate_fn([dataset.load(i) for i in indices[:_BATCH_IMAGES]])
            size = loader.collate_fn.size_for((images.shape[2], images.shape[3]), epoch, step)
            yield resize_batch(images, size), targets

    def _val_cells(self, evaluation: Evaluation) -> Iterator[Image.Image]:
        dataset, found = self._cfg.val_dataset, evaluation.detections
        if found is None:
            return
        parts = found.slices()
        threshold = evaluation.best.threshold if evaluation.best.f1 > 0 else _DEFAULT_THRESHOLD
        for index in _select_images(dataset.annotations.boxes_per_image()):
            record = dataset.annotations[index]
            try:
                pixels = dataset.read_pixels(record)
            except DatasetError as error:
                logger.debug("image not drawn: %s", error)
                continue
            shapes = [
                box_shape(box, _ANNOTATION_COLOR, line_px=1)
                for box in record.boxes_xyxy[:_MAX_BOXES]
            ]
            part = parts.get(record.image_id, slice(0, 0))
            is_shown = found.scores[part] >= threshold
            columns = (
                values[part][is_shown] for values in (found.boxes, found.labels, found.scores)
            )
            for box, label, score in itertools.islice(zip(*columns, strict=True), _MAX_BOXES):
                text = f"{dataset.categories.names[label]} {score:.2f}"
                shapes.append(box_shape(box, class_color(int(label)), label=text))
            yield cell(pixels, shapes)

    def _save(
        self, name: str, tag: str, cells: Sequence[Image.Image], columns: int, epoch: int
    ) -> None:
        """Write a mosaic of the cells to the directory and to TensorBoard."""
        mosaic = arranged(cells, columns)
        path = self._folder / name
        mosaic.save(path, "JPEG", quality=_JPEG_QUALITY)
        if self._on_image is not None:
            self._on_image(tag, path, epoch + 1)
        with contextlib.suppress(OSError):  # the solver has logged that TensorBoard is disabled
            if self._cfg.writer is not None:
                self._cfg.writer.add_image(tag, np.asarray(mosaic), epoch + 1, dataformats="HWC")

    def _guarded(self, save: Callable[[], None]) -> None:
        if not self._is_enabled:
            return
        try:
            save()
        except (OSError, RuntimeError, ValueError, DatasetError) as error:
            self._is_enabled = False
            logger.warning(
                "Could not save training images: %s. Training continues without them",
                printable(str(error)),
            )


def _select_images(boxes_per_image: np.ndarray) -> list[int]:
    """Return indices of up to `_VAL_IMAGES` images with boxes, evenly over the split."""
    indices = np.flatnonzero(boxes_per_image)
    count = min(_VAL_IMAGES, len(indices))
    return [int(indices[i * len(indices) // count]) for i in range(count)]


def _to_uint8(image: Tensor) -> np.ndarray:
    """[3, H, W] 0..1 -> [H, W, 3] uint8."""
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
