"""Published models, and norms as after training."""

import pytest
import torch
from torch import nn

from rtdetrv2_pytorch.src.nn.layers import FrozenBatchNorm2d
from tests.goldens import load_models


@pytest.fixture(scope="session")
def models() -> dict:
    """tests/golden/models.json: every published configuration, resolved."""
    return load_models()


@torch.no_grad()
def _disturb_norms(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            for value in (module.bias, module.running_mean):
                value.uniform_(-0.2, 0.2)
            for value in (module.weight, module.running_var):
                value.uniform_(0.5, 1.5)
    return model


@pytest.fixture
def disturb_norms():
    """Randomize the norms of a model as after training."""
    return _disturb_norms
