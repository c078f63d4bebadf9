"""Checkpoints of tiny detectors with random weights, and their detections."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.deploy.detector import load_detector
from tests.random_detectors import random_images, randomize_weights
from tests.tiny import CONFIGS, NETWORK

SIZE_HW = (96, 160)
NAMES = ["cat", "dog", "owl"]


def _make_checkpoint(
    path: Path,
    config: str = "rtdetrv2_r18vd_120e_coco",
    size_hw: tuple[int, int] = SIZE_HW,
    network: dict | None = None,
    **overrides,
) -> Path:
    values = merge(
        merge(NETWORK if network is None else network, overrides),
        {"eval_spatial_size": list(size_hw), "num_classes": len(NAMES), "device": "cpu"},
    )
    cfg = YAMLConfig(CONFIGS / "rtdetrv2" / f"{config}.yml", **values)
    content = {
        "model": randomize_weights(cfg.model, size_hw).state_dict(),
        "config": cfg.yaml_cfg,
        "class_names": NAMES,
        "eval_spatial_size": list(size_hw),
        "thresholds": {"overall": 0.4, "per_class": {"cat": 0.5, "dog": 0.3, "owl": 1.0}},
    }
    torch.save(content, path)
    return path


@pytest.fixture(scope="session")
def make_checkpoint():
    """make_checkpoint(path, config, size_hw, network, **overrides): write a checkpoint."""
    return _make_checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> SimpleNamespace:
    """A checkpoint, its detector and model card, seven images with sizes, and its detections."""
    path = _make_checkpoint(tmp_path_factory.mktemp("tiny") / "best.pth")
    detector, card = load_detector(path)
    images = random_images(7, SIZE_HW)
    sizes_wh = torch.tensor([[640 + 100 * i, 480 - 50 * i] for i in range(7)])
    with torch.inference_mode():
        found = detector(images, sizes_wh)
    return SimpleNamespace(
        path=path, detector=detector, card=card, images=images, sizes_wh=sizes_wh, found=found
    )
