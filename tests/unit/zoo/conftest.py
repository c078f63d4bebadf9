"""Random ground truth and small networks for reference implementations."""

import re

import pytest
import torch
from torch import nn

from rtdetrv2_pytorch.src.nn.presnet import PResNet
from rtdetrv2_pytorch.src.zoo.rtdetr.decoder import RTDETRTransformerv2
from rtdetrv2_pytorch.src.zoo.rtdetr.hybrid_encoder import HybridEncoder
from rtdetrv2_pytorch.src.zoo.rtdetr.rtdetr import RTDETR

_FIXED = r"anchors$|num_points_scale$|pos_embed\d$"  # depends on sizes only


@torch.no_grad()
def _disturb(module: nn.Module) -> nn.Module:
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if not value.is_floating_point() or re.search(_FIXED, name):
            continue
        if value.dim() > 1:
            value += torch.randn_like(value) * 0.5 / value[0].numel() ** 0.5
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        else:
            value += torch.randn_like(value) * 0.1
    return module


@pytest.fixture
def disturb():
    """Randomize all weights and norm statistics, so that none is 0 or 1."""
    return _disturb


def _make_targets(*counts: int, num_classes: int = 5):
    targets = []
    for image, count in enumerate(counts):
        size = torch.rand(count, 2) * 0.3 + 0.05
        center = size / 2 + torch.rand(count, 2) * (1 - size)
        targets.append(
            {
                "labels": torch.randint(num_classes, (count,)),
                "boxes": torch.cat((center, size), dim=1),
                "image_id": torch.tensor([100 + image]),
            }
        )
    return targets


@pytest.fixture
def make_targets():
    """make_targets(2, 0, 1): random boxes inside three images."""
    return _make_targets


DECODER = {
    "num_classes": 5,
    "hidden_dim": 16,
    "num_queries": 6,
    "feat_channels": (8, 12),
    "feat_strides": (8, 16),
    "num_levels": 2,
    "num_points": [2, 3],
    "nhead": 2,
    "num_layers": 3,
    "dim_feedforward": 20,
    "num_denoising": 4,
}


@pytest.fixture
def make_decoder():
    """Return a decoder with two levels and randomized weights."""

    def make(**options) -> RTDETRTransformerv2:
        return _disturb(RTDETRTransformerv2(**(DECODER | options)))

    return make


@pytest.fixture
def make_features():
    """Return feature maps of an image of the given size."""

    def make(height: int = 32, width: int = 48, batch: int = 2) -> list[torch.Tensor]:
        strides_and_channels = zip(DECODER["feat_strides"], DECODER["feat_channels"], strict=True)
        return [torch.randn(batch, c, height // s, width // s) for s, c in strides_and_channels]

    return make


@pytest.fixture
def make_detector():
    """A complete detector with a real backbone, and a narrow encoder and decoder."""

    def make(backbone: nn.Module | None = None, **options) -> RTDETR:
        backbone = backbone or PResNet(depth=18, return_idx=[1, 2, 3], freeze_norm=False)
        encoder = HybridEncoder(
            in_channels=backbone.out_channels,
            hidden_dim=16,
            nhead=2,
            dim_feedforward=20,
            expansion=0.5,
            eval_spatial_size=options.get("eval_spatial_size"),
        )
        three_levels = {
            "feat_channels": encoder.out_channels,
            "feat_strides": encoder.out_strides,
            "num_levels": 3,
            "num_points": 2,
        }
        decoder = RTDETRTransformerv2(**(DECODER | three_levels | options))
        return _disturb(RTDETR(backbone=backbone, encoder=encoder, decoder=decoder))

    return make
