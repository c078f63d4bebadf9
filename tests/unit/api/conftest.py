"""A tiny detector with random weights, and an image."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtdetrv2 import RTDETR
from rtdetrv2_pytorch.src.core.yaml_files import merge
from tests.random_detectors import random_images, save_random_detector
from tests.tiny import NETWORK, SMALL_BACKBONE


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    return save_random_detector(
        tmp_path_factory.mktemp("run") / "best.pth", network=merge(NETWORK, SMALL_BACKBONE)
    )


@pytest.fixture(scope="session")
def model(checkpoint) -> RTDETR:
    return RTDETR(checkpoint, device="cpu")


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """Return [60, 80, 3] uint8."""
    (image,) = random_images(1, (60, 80))
    return (image * 255).round().byte().permute(1, 2, 0).numpy()


@pytest.fixture
def image(tmp_path, pixels) -> Path:
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    return path
