"""A picture of the augmentation presets: a row per preset, the same images in each."""

import random
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..core.yaml_config import YAMLConfig
from ..data.augment.compose import Compose
from ..data.augment.presets import PRESETS, AugmentationName, preset_ops
from ..misc.errors import ConfigError
from ..misc.seeding import derive_seed
from .cells import GAP_COLOR, GAP_PX, cell, normalized_shapes

# The images as they are come first.
ALL: tuple[AugmentationName, ...] = ("none", *(name for name in PRESETS if name != "none"))
_TITLE_PX, _FONT_PX = 22, 13
_BACKGROUND, _TEXT = (255, 255, 255), (30, 34, 40)


def augmentation_sheet(
    cfg: YAMLConfig,
    names: Sequence[AugmentationName] = ALL,
    *,
    columns: int = 6,
    side_px: int = 160,
) -> Image.Image:
    """Draw training images of a run as presets change them, with their boxes.

    Args:
        cfg: configuration of the run, whose image size is used.
        names: of the presets, a row each.
        columns: images per row.
        side_px: of an image.

    Raises:
        ConfigError: if the training data has no Resize.
        DatasetError: if no image can be read.
    """
    dataset = cfg.train_dataset
    indices = _with_boxes(dataset.annotations.boxes_per_image(), columns)
    width = len(indices) * (side_px + GAP_PX) - GAP_PX
    row_px = _TITLE_PX + side_px + GAP_PX
    sheet = Image.new("RGB", (width, row_px * len(names)), _BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_PX)
    for row, name in enumerate(names):
        top = row * row_px
        draw.text((4, top + 3), f"{name}: {PRESETS[name].summary}", _TEXT, font)
        top += _TITLE_PX
        draw.rectangle((0, top, width, top + side_px - 1), GAP_COLOR)
        compose = _pipeline(cfg, name)
        for column, index in enumerate(indices):
            rng = random.Random(derive_seed(cfg.settings.seed, row, index))
            sample = compose(dataset.load_readable(index)[1], rng)
            sample.materialize()
            shapes = normalized_shapes(sample.boxes, sample.labels, sample.image)
            pixels = np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())
            small = cell(pixels, shapes, side_px=side_px)
            left = column * (side_px + GAP_PX) + (side_px - small.width) // 2
            sheet.paste(small, (left, top + (side_px - small.height) // 2))
    return sheet


def _pipeline(cfg: YAMLConfig, name: AugmentationName) -> Compose:
    values = cfg.yaml_cfg["train_dataloader"]["dataset"].get("transforms") or {}
    ops = [op for op in values.get("ops") or () if op.get("type") != "Normalize"]
    if not any(op.get("type") == "Resize" for op in ops):
        raise ConfigError("train_dataloader.dataset.transforms.ops has no Resize; add one")
    given = {"type": "Compose", "ops": preset_ops(name, ops)}
    compose: Compose = cfg.sections({}).construct(given, "transforms")
    compose.bind(cfg.train_dataset)
    return compose


def _with_boxes(boxes_per_image: np.ndarray, count: int) -> list[int]:
    """Return indices of up to `count` images with boxes, evenly over the split."""
    indices = np.flatnonzero(boxes_per_image)
    if not len(indices):
        indices = np.arange(len(boxes_per_image))
    count = min(count, len(indices))
    return [int(indices[i * len(indices) // count]) for i in range(count)]
