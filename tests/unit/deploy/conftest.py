"""Checkpoints of tiny detectors with random weights, and their detections."""

from types import SimpleNamespace

import pytest
import torch

from rtdetrv2_pytorch.src.deploy.detector import load_detector
from tests.random_detectors import SIZE_HW, random_images, save_random_detector


@pytest.fixture(scope="session")
def make_checkpoint():
    """make_checkpoint(path, config, size_hw, network, **overrides): write a checkpoint."""
    return save_random_detector


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> SimpleNamespace:
    """A checkpoint, its detector and model card, seven images with sizes, and its detections."""
    with torch.random.fork_rng():  # some initial values are kept
        torch.manual_seed(2)  # other networks have near ties, which rounding decides
        path = save_random_detector(tmp_path_factory.mktemp("tiny") / "best.pth")
    detector, card = load_detector(path)
    images = random_images(7, SIZE_HW)
    sizes_wh = torch.tensor([[640 + 100 * i, 480 - 50 * i] for i in range(7)])
    with torch.inference_mode():
        found = detector(images, sizes_wh)
    return SimpleNamespace(
        path=path, detector=detector, card=card, images=images, sizes_wh=sizes_wh, found=found
    )
