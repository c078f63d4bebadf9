"""Pictures while it trains: batches as they enter the network, and what it finds by epoch."""

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from ..core.yaml_config import YAMLConfig
from ..data.collate import resize_batch
from ..data.evaluator import Evaluation
from ..data.images import read_rgb
from ..misc.errors import DatasetError
from ..misc.text import printable
from ..report.snapshots import PICTURES, TRAIN_NAME, VAL_NAME, remove_snapshots
from ..structures import Target
from .events import EpochReport, TrainingEvents, TrainingPlan

logger = logging.getLogger(__name__)

_BATCHES = 2
_BATCH_IMAGES, _BATCH_COLUMNS = 8, 4
_VAL_IMAGES, _VAL_COLUMNS = 6, 3
_CELL_PX = 300
_MOST_EPOCHS = 20  # that validation images are drawn in, evenly over the run
_MOST_BOXES = 50  # drawn in an image
_UNSURE = 0.5  # the threshold while no detection is right
_QUALITY = 80
_TRUTH = (255, 255, 255)
_BETWEEN = (96, 104, 116)
_COLOURS = (
    (55, 214, 122), (255, 92, 92), (255, 194, 51), (98, 170, 255), (214, 130, 255),
    (70, 220, 230), (255, 140, 190), (190, 230, 70),
)  # fmt: skip

Label = tuple[np.ndarray, tuple[int, int, int], str]  # xyxy pixels, colour, text


class TrainingPictures(TrainingEvents):
    """Draws into the run's folder and for TensorBoard; a failure ends the pictures only.

    Randomness is a function of place, so that the first batches can be made once more: these are
    the very pixels that the network gets.

    Args:
        cfg: of the run.
        writer: of TensorBoard, if there is one.
    """

    def __init__(self, cfg: YAMLConfig, writer: SummaryWriter | None) -> None:
        self._cfg = cfg
        self._writer = writer
        self._folder = cfg.output_dir / PICTURES
        self._epochs = 0
        self._is_alive = True

    def train_started(self, plan: TrainingPlan) -> None:
        """Draw the first batches of the first epoch."""
        self._epochs = plan.epochs

        def draw() -> None:
            self._folder.mkdir(parents=True, exist_ok=True)
            remove_snapshots(self._folder, plan.first_epoch)
            for number, (images, targets) in enumerate(self._first_batches(plan.first_epoch)):
                name = TRAIN_NAME.format(epoch=plan.first_epoch, batch=number)
                cells = [
                    _drawn(_to_pixels(image), self._labels_of(target, image))
                    for image, target in zip(images, targets, strict=True)
                ]
                self._keep(name, f"train/batch_{number}", cells, _BATCH_COLUMNS, plan.first_epoch)

        if plan.first_epoch < plan.epochs:
            self._guarded(draw)

    def epoch_finished(self, report: EpochReport) -> None:
        """Draw the same validation images as ever, with what is found now."""
        epoch = report.epoch
        every = math.ceil(self._epochs / _MOST_EPOCHS)
        if epoch > 0 and (epoch + 1) % every and epoch + 1 < self._epochs:
            return

        def draw() -> None:
            cells = list(self._val_images(report.evaluation))
            if cells:
                self._keep(
                    VAL_NAME.format(epoch=epoch), "val/detections", cells, _VAL_COLUMNS, epoch
                )

        self._guarded(draw)

    def _first_batches(self, epoch: int) -> Iterator[tuple[Tensor, Sequence[Target]]]:
        loader, dataset = self._cfg.train_dataloader, self._cfg.train_dataset
        loader.set_epoch(epoch)
        for step, indices in enumerate(itertools.islice(loader.epoch_sampler, _BATCHES)):
            images, targets = loader.collate([dataset[i] for i in indices[:_BATCH_IMAGES]])
            size = loader.collate.size_for((images.shape[2], images.shape[3]), epoch, step)
            yield resize_batch(images, size), targets

    def _labels_of(self, target: Target, image: Tensor) -> list[Label]:
        height, width = image.shape[1:]
        cx, cy, w, h = target["boxes"].numpy().T
        scale = np.array([width, height, width, height])
        corners = np.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), axis=1) * scale
        names = self._cfg.train_dataset.categories.names
        return [
            (box, _colour(label), names[label])
            for box, label in zip(corners, target["labels"].tolist(), strict=True)
        ]

    def _val_images(self, evaluation: Evaluation) -> Iterator[Image.Image]:
        dataset, found = self._cfg.val_dataset, evaluation.found
        if found is None:
            return
        parts = found.slices()
        threshold = evaluation.best.threshold if evaluation.best.f1 > 0 else _UNSURE
        for place in _handful(dataset.annotations.boxes_per_image()):
            record = dataset.annotations[place]
            try:
                pixels = read_rgb(dataset.img_folder / record.file_name, record.size_wh)
            except DatasetError as error:
                logger.debug("not drawn: %s", error)
                continue
            labels: list[Label] = [(box, _TRUTH, "") for box in record.boxes_xyxy[:_MOST_BOXES]]
            part = parts.get(record.image_id, slice(0, 0))
            is_used = found.scores[part] >= threshold
            columns = (
                values[part][is_used] for values in (found.boxes, found.labels, found.scores)
            )
            for box, label, score in itertools.islice(zip(*columns, strict=True), _MOST_BOXES):
                text = f"{dataset.categories.names[label]} {score:.2f}"
                labels.append((box, _colour(int(label)), text))
            yield _drawn(pixels, labels)

    def _keep(
        self, name: str, tag: str, cells: Sequence[Image.Image], columns: int, step: int
    ) -> None:
        """Write a picture of all cells to the folder and for TensorBoard."""
        mosaic = _mosaic(cells, columns)
        mosaic.save(self._folder / name, "JPEG", quality=_QUALITY)
        if self._writer is not None:
            self._writer.add_image(tag, np.asarray(mosaic), step, dataformats="HWC")

    def _guarded(self, draw: Callable[[], None]) -> None:
        if not self._is_alive:
            return
        try:
            draw()
        except (OSError, RuntimeError, ValueError, DatasetError) as error:
            self._is_alive = False
            logger.warning("no more pictures, training goes on: %s", printable(str(error)))


def _handful(boxes_per_image: np.ndarray) -> list[int]:
    """Places of a few images with boxes, evenly over the split: the same ones in every epoch."""
    places = np.flatnonzero(boxes_per_image)
    count = min(_VAL_IMAGES, len(places))
    return [int(places[i * len(places) // count]) for i in range(count)]


def _to_pixels(image: Tensor) -> np.ndarray:
    """[3, H, W] 0..1 -> [H, W, 3] uint8."""
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def _colour(label: int) -> tuple[int, int, int]:
    return _COLOURS[label % len(_COLOURS)]


def _drawn(pixels: np.ndarray, labels: Sequence[Label]) -> Image.Image:
    """An image of the size of a cell with its boxes."""
    image = Image.fromarray(pixels)
    factor = _CELL_PX / max(image.size)
    width, height = (max(1, round(side * factor)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=11)
    taken: list[tuple[float, float, float, float]] = []
    for box, colour, text in labels:
        x1, y1, x2, y2 = (float(v) * factor for v in box)
        corners = (x1, y1, max(x2, x1 + 1), max(y2, y1 + 1))
        draw.rectangle(corners, outline=colour, width=1 if colour == _TRUTH else 2)
        short = printable(text if len(text) <= 20 else f"{text[:19]}~")
        place = (x1 + 2, max(y1 - 13, 0))
        room = draw.textbbox(place, short, font=font)
        if short and not any(_overlap(room, other) for other in taken):
            taken.append(room)
            draw.text(place, short, fill=colour, font=font, stroke_width=2, stroke_fill=(0, 0, 0))
    return image


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether two boxes, xyxy, share more than their borders."""
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def _mosaic(cells: Sequence[Image.Image], columns: int) -> Image.Image:
    """All cells in rows; images may have black borders of their own, so that it is not black."""
    gap = 4
    columns = min(columns, len(cells))
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    width = columns * (_CELL_PX + gap) - gap
    heights = [max(cell.height for cell in row) for row in rows]
    size = (width, sum(heights) + gap * (len(rows) - 1))
    canvas = Image.new("RGB", size, _BETWEEN)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            left = column * (_CELL_PX + gap) + (_CELL_PX - cell.width) // 2
            canvas.paste(cell, (left, top + (height - cell.height) // 2))
        top += height + gap
    return canvas
