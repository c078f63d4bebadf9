"""Images, annotation files and pipelines for the tests of the data package."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from rtdetrv2_pytorch.src.core.build import Sections
from rtdetrv2_pytorch.src.data.augment.compose import Compose
from rtdetrv2_pytorch.src.data.augment.sample import Sample

RECIPE = Path(__file__).parents[3] / "rtdetrv2_pytorch/configs/rtdetrv2/include/dataloader.yml"


@pytest.fixture(scope="session")
def noise() -> Callable[..., Tensor]:
    """Creates random images, [3, height, width] uint8."""

    def make(height: int, width: int, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)

    return make


@pytest.fixture(scope="session")
def make_sample(noise) -> Callable[..., Sample]:
    """Creates samples with random pixels; labels and areas count from 0."""

    def make(height: int, width: int, *boxes: tuple[float, ...], seed: int = 0) -> Sample:
        return Sample(
            image=noise(height, width, seed),
            boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
            labels=np.arange(len(boxes)),
            area=np.arange(len(boxes), dtype=np.float64),
        )

    return make


@pytest.fixture
def write_coco(tmp_path) -> Callable[..., dict]:
    """Writes a COCO data set and returns the arguments of `CocoDetection`.

    Default: a.png (id 1) and b.png (id 2), 40 wide and 30 high; cat (id 1) and dog (id 2).
    An annotation that lacks something gets it: a dog of 10 x 8 pixels at (4, 3) in image 1.
    """

    def write(annotations=(), images=None, categories=None, files=None, **other) -> dict:
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        if images is None:
            images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
        if files is None:
            files = [i["file_name"] for i in images]
        for number, name in enumerate(files):
            pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / name)
        if categories is None:
            categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        defaults = {"image_id": 1, "category_id": 2, "bbox": [4, 3, 10, 8], "iscrowd": 0}
        entries = [
            {"id": number, **defaults, **a} if isinstance(a, dict) else a
            for number, a in enumerate(annotations, start=1)
        ]
        content = {"images": images, "annotations": entries, "categories": categories}
        ann_file = tmp_path / "instances.json"
        ann_file.write_text(json.dumps(content), encoding="utf-8")
        return {"img_folder": str(folder), "ann_file": str(ann_file), "transforms": None, **other}

    return write


@pytest.fixture
def training_pipeline() -> Compose:
    """The training augmentation of the published recipes, from their YAML file."""
    section = yaml.safe_load(RECIPE.read_text())["train_dataloader"]["dataset"]["transforms"]
    return Sections({}, {}).construct({"type": "Compose", **section}, "transforms")
