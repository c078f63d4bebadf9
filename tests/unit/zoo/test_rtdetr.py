"""The whole detector: input types and sizes, and the fused form."""

import copy

import pytest
import torch
from torch import nn

from rtdetrv2_pytorch.src.nn.hgnetv2 import HGNetv2
from rtdetrv2_pytorch.src.nn.presnet import PResNet

BACKBONES = {
    "resnet": lambda: PResNet(depth=18, return_idx=[1, 2, 3], freeze_norm=False),
    "frozen resnet": lambda: PResNet(depth=18, return_idx=[1, 2, 3], freeze_at=0),
    "hgnet": lambda: HGNetv2(name="L", freeze_at=0, freeze_norm=True),
}


def assert_outputs(found, expected, tolerance):
    assert set(found) == set(expected) == {"pred_logits", "pred_boxes"}
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=0, atol=tolerance)


@pytest.fixture
def detector(make_detector):
    return make_detector().eval()


def test_module_order_matches_published_weights(detector):
    assert [name for name, _ in detector.named_children()] == ["backbone", "decoder", "encoder"]


@torch.no_grad()
def test_forward_chains_modules(detector):
    images = torch.rand(2, 3, 64, 96)
    expected = detector.decoder(detector.encoder(detector.backbone(images)))
    assert_outputs(detector(images), expected, 0)


@torch.no_grad()
def test_uint8_input_equals_float_input(detector):
    images = torch.randint(256, (2, 3, 64, 32), dtype=torch.uint8)
    before = images.clone()
    assert_outputs(detector(images), detector(images / 255), 1e-6)
    assert torch.equal(images, before)


@torch.no_grad()
def test_batch_equals_single_images(detector):
    images = torch.rand(3, 3, 64, 64)
    together = detector(images)
    for i in range(3):
        alone = detector(images[i : i + 1])
        assert_outputs(alone, {k: v[i : i + 1] for k, v in together.items()}, 1e-4)


@pytest.mark.parametrize("size", [(64, 100), (33, 64), (31, 31)])
def test_sides_must_be_divisible_by_32(detector, size):
    height, width = size
    with pytest.raises(
        ValueError,
        match=rf"^images are {height}x{width} \(height x width\); both sides must be divisible by",
    ):
        detector(torch.rand(1, 3, height, width))


def test_targets_are_used_for_denoising_in_training_only(detector, make_targets):
    images, targets = torch.rand(2, 3, 64, 64), make_targets(1, 2)
    assert "dn_aux_outputs" in detector.train()(images, targets)
    assert "dn_aux_outputs" not in detector(images)
    assert_outputs(detector.eval()(images, targets), detector(images), 0)


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.no_grad()
def test_fused_network_has_same_output(make_detector, backbone):
    model = make_detector(BACKBONES[backbone](), eval_spatial_size=(64, 64)).eval()
    images = torch.rand(2, 3, 64, 64)
    expected = model(images)
    fused = copy.deepcopy(model).train()
    assert fused.deploy() is fused
    assert not fused.training
    assert_outputs(fused(images), expected, 1e-4)
    # Another image size and a second call do not change the result.
    images = torch.rand(1, 3, 96, 64)
    assert_outputs(fused.deploy()(images), model(images), 1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_fused_network_has_no_branches_or_norms(make_detector, backbone):
    model = make_detector(BACKBONES[backbone]())
    blocks = [n for n, _ in model.named_modules() if n.endswith(("bottlenecks.0", "bottlenecks.1"))]
    assert len(blocks) == 8
    model.deploy()
    for block in blocks:
        assert [n for n, _ in model.get_submodule(block).named_children()] == ["act", "conv"]
    norms = [n for n, m in model.named_modules() if "BatchNorm" in type(m).__name__]
    assert norms == []
    # Every convolution has the bias that its norm became.
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.bias is not None for m in convolutions)
