"""Augmentation presets: their operations, and pixels against boxes."""

import random
from typing import get_args

import numpy as np
import pytest
import torch

from rtdetrv2_pytorch.src.core.build import Sections
from rtdetrv2_pytorch.src.data.augment.presets import (
    PRESETS,
    AugmentationName,
    preset_ops,
    stopped_ops,
)

RECIPE = [
    {"type": "RandomZoomOut", "fill": 0},
    {"type": "RandomHorizontalFlip"},
    {"type": "Resize", "size": [96, 128]},
    {"type": "SanitizeBoundingBoxes", "min_size": 1},
    {"type": "Normalize", "mean": [0, 0, 0], "std": [1, 1, 1]},
    {"type": "ConvertPILImage", "dtype": "float32", "scale": True},
    {"type": "ConvertBoxes", "fmt": "cxcywh", "normalize": True},
]


def build(ops):
    return Sections({}, {}).construct({"type": "Compose", "ops": ops}, "transforms")


def types(name):
    return [op["type"] for op in preset_ops(name, RECIPE)]


def test_every_name_has_a_preset():
    assert tuple(PRESETS) == get_args(AugmentationName)


def test_other_operations_of_the_configuration_are_kept():
    rest = ["Normalize", "ConvertPILImage", "ConvertBoxes"]
    sanitize = "SanitizeBoundingBoxes"
    assert types("none") == [sanitize, "Resize", sanitize, *rest]
    colors = "RandomPhotometricDistort"
    assert types("light") == [
        *(colors, "RandomHorizontalFlip", sanitize, "Resize", sanitize), *rest,
    ]  # fmt: skip
    assert types("industrial")[-6:] == [sanitize, "RandomBlur", "RandomNoise", *rest]
    assert {"type": "Resize", "size": [96, 128]} in preset_ops("aerial", RECIPE)


def test_documents_are_never_mirrored_or_turned():
    turning = {"RandomHorizontalFlip", "RandomVerticalFlip", "RandomQuarterTurn"}
    assert turning.isdisjoint(types("documents"))
    assert {"RandomHorizontalFlip", "RandomQuarterTurn"} <= {*types("aerial")}


def test_flips_and_turns_remain_in_the_last_epochs():
    assert stopped_ops("microscopy") == [
        *("RandomPhotometricDistort", "RandomIoUCrop", "RandomBlur", "RandomNoise"),
    ]
    assert stopped_ops("none") == []


@pytest.mark.parametrize("name", PRESETS)
def test_boxes_stay_on_their_pixels(make_sample, name):
    """A white object on black: its box contains the bright pixels, for 30 random samples."""
    ops = [op for op in preset_ops(name, RECIPE) if op["type"] not in ("Normalize", "ConvertBoxes")]
    ops = [{**op, "fill": 0} if op["type"] == "RandomAffine" else op for op in ops]
    compose = build(ops)
    checked = 0
    for seed in range(30):
        sample = make_sample(120, 150, (50, 40, 100, 80))
        sample.image = torch.zeros(3, 120, 150, dtype=torch.uint8)
        sample.image[:, 40:80, 50:100] = 255
        compose(sample, random.Random(seed)).materialize()
        assert sample.image.shape == (3, 96, 128)
        pixels = sample.image.float().mean(0)
        if not len(sample.boxes) or pixels.max() < 60:
            continue
        rows, columns = torch.nonzero(pixels > pixels.max() / 2, as_tuple=True)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(sample.boxes, [[float(v) for v in found]], atol=3.5)
        checked += 1
    assert checked > 15
