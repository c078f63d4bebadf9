"""HGNetv2 against a forward pass written with functions, its padding and its frozen parts."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from rtdetrv2_pytorch.src.misc.errors import CheckpointError
from rtdetrv2_pytorch.src.nn.hgnetv2 import (
    IMAGENET_WEIGHTS,
    ConvBnAct,
    HGNetv2,
    LearnableAffine,
    StemBlock,
)
from rtdetrv2_pytorch.src.nn.layers import FrozenBatchNorm2d, freeze_batch_norms


def conv_bn(state, key, x, stride=1, act=True):
    """Compute the unit at `key` from its weights; a 2x2 kernel covers right and lower neighbors."""
    inner = f"{key}.conv.1.weight" if f"{key}.conv.1.weight" in state else f"{key}.conv.weight"
    weight = state[inner]
    size = weight.shape[-1]
    before, after = ((size - 1) // 2,) * 2 if size % 2 else (0, 1)
    x = F.pad(x, (before, after, before, after))
    x = F.conv2d(x, weight, stride=stride, groups=x.shape[1] // weight.shape[1])
    norm = {k: state[f"{key}.bn.{k}"] for k in ("running_mean", "running_var", "weight", "bias")}
    x = F.batch_norm(x, **norm, eps=1e-5)
    return x.relu() if act else x


def plain_stem(state, x, prefix="stem."):
    x = conv_bn(state, f"{prefix}stem1", x, 2)
    learned = conv_bn(state, f"{prefix}stem2b", conv_bn(state, f"{prefix}stem2a", x))
    right = F.pad(x, (0, 1, 0, 1))  # each cell with its right, lower and diagonal neighbor
    around = (right[..., :-1, :-1], right[..., :-1, 1:], right[..., 1:, :-1], right[..., 1:, 1:])
    x = torch.cat((torch.stack(around).amax(0), learned), dim=1)
    return conv_bn(state, f"{prefix}stem4", conv_bn(state, f"{prefix}stem3", x, 2))


def plain_hgnet(state, stages, x):
    x = plain_stem(state, x)
    maps = []
    for s, stage in enumerate(stages.values()):
        if stage["downsample"]:
            x = conv_bn(state, f"stages.{s}.downsample", x, 2, act=False)
        for b in range(stage["blocks"]):
            key = f"stages.{s}.blocks.{b}"
            results = [x]
            for n in range(stage["layers_per_block"]):
                layer = f"{key}.layers.{n}"
                if stage["light_block"]:
                    inner = conv_bn(state, f"{layer}.conv1", results[-1], act=False)
                    results.append(conv_bn(state, f"{layer}.conv2", inner))
                else:
                    results.append(conv_bn(state, layer, results[-1]))
            y = conv_bn(state, f"{key}.aggregation_squeeze_conv", torch.cat(results, dim=1))
            y = conv_bn(state, f"{key}.aggregation_excitation_conv", y)
            x = y + x if b > 0 else y
        maps.append(x)
    return maps


@pytest.mark.parametrize("freeze_norm", [False, True])
def test_features_match_reference(models, freeze_norm, disturb_norms):
    stages = models["rtdetrv2_hgnetv2_l_6x_coco"]["backbone"]["stage_table"]
    model = HGNetv2(name="L", return_idx=[0, 1, 2, 3], freeze_norm=freeze_norm)
    disturb_norms(model)
    model.train(freeze_norm)  # frozen norms are unaffected
    x = torch.rand(2, 3, 70, 45)
    with torch.no_grad():
        found, expected = model(x), plain_hgnet(model.state_dict(), stages, x)
    for mine, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-3, atol=1e-3 * plain.abs().max().item())
    # 70 x 45 -> 35 x 23 -> 18 x 12 after the stem, then halved three times, rounding up.
    assert [tuple(m.shape[2:]) for m in found] == [(18, 12), (9, 6), (5, 3), (3, 2)]


@pytest.mark.parametrize("name", ["L", "X", "H"])
def test_widths_and_depths_match_published(models, name):
    facts = models[f"rtdetrv2_hgnetv2_{name.lower()}_6x_coco"]["backbone"]
    with torch.device("meta"):
        model = HGNetv2(name=name, return_idx=[0, 1, 2, 3])
    assert model.out_channels == facts["out_channels_all_stages"]
    assert model.out_strides == [4, 8, 16, 32]
    convs = [model.stem.stem1.conv, model.stem.stem4.conv]
    assert [3, *(c.out_channels for c in convs)] == facts["stem_channels"]
    for stage, fact in zip(model.stages, facts["stage_table"].values(), strict=True):
        assert isinstance(stage.downsample, ConvBnAct) == fact["downsample"]
        assert len(stage.blocks) == fact["blocks"]
        assert [b.shortcut for b in stage.blocks] == [i > 0 for i in range(fact["blocks"])]
        last = stage.blocks[0].layers[-1]
        depthwise = last.conv2.conv if fact["light_block"] else None
        kernel = depthwise or last.conv
        assert len(stage.blocks[0].layers) == fact["layers_per_block"]
        assert (kernel.kernel_size[0], kernel.out_channels) == (fact["kernel"], fact["mid"])
        assert kernel.groups == (fact["mid"] if fact["light_block"] else 1)


def test_even_kernel_pads_right_and_bottom():
    unit = ConvBnAct(1, 1, 2, use_act=False).eval()
    nn.init.ones_(unit.conv[1].weight)
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    # 1 + 2 + 3 + 4; 2 + 4; 3 + 4; 4: zeros beyond the right and the lower border.
    expected = torch.tensor([[[[10.0, 6.0], [7.0, 4.0]]]]) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(unit(x), expected)
    assert "conv.1.weight" in unit.state_dict()


@pytest.mark.parametrize("size", [(8, 12), (9, 7)])
def test_stem_concatenates_pooled_branch_first(size, disturb_norms):
    stem = disturb_norms(StemBlock(8, 6, use_lab=False)).eval()
    x = torch.randn(2, 3, *size)
    expected = plain_stem(stem.state_dict(), x, prefix="")
    torch.testing.assert_close(stem(x), expected, rtol=1e-4, atol=1e-5)


def test_convolutions_use_kaiming_normal_initialization():
    unit = ConvBnAct(64, 128, 3)
    torch.testing.assert_close(
        unit.conv.weight.std(), torch.tensor((2 / (64 * 9)) ** 0.5), rtol=0.02, atol=0
    )


def test_learnable_affine_by_hand():
    affine = LearnableAffine()
    assert affine(torch.tensor([3.0])).tolist() == [3.0]  # starts as the identity
    affine.load_state_dict({"scale": torch.tensor([2.0]), "bias": torch.tensor([0.5])})
    assert affine(torch.tensor([-1.0, 3.0])).tolist() == [-1.5, 6.5]
    with torch.device("meta"):
        model = HGNetv2(name="L", use_lab=True)
    with_affine = {name for name, m in model.named_modules() if isinstance(m, ConvBnAct)} - {
        name for name, m in model.named_modules() if isinstance(getattr(m, "lab", 0), nn.Identity)
    }
    relu = {name for name, m in model.named_modules() if isinstance(getattr(m, "act", 0), nn.ReLU)}
    assert with_affine == relu
    assert len(relu) == 5 + 6 * (6 + 2)  # the stem; six blocks: a chain of six, and two after it


def test_affine_follows_relu():
    unit = ConvBnAct(1, 1, 1, use_lab=True).eval()
    nn.init.ones_(unit.conv.weight)
    unit.lab.load_state_dict({"scale": torch.tensor([2.0]), "bias": torch.tensor([-1.0])})
    found = unit(torch.tensor([-5.0, 3.0]).view(1, 1, 1, 2)).flatten()
    torch.testing.assert_close(found, torch.tensor([-1.0, 5.0]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("frozen", [False, True])
def test_conversion_keeps_output_and_is_idempotent(kernel, frozen, disturb_norms):
    unit = disturb_norms(ConvBnAct(4, 4, kernel, groups=2)).eval()
    if frozen:
        freeze_batch_norms(unit)
    x = torch.randn(2, 4, 6, 5)
    expected = unit(x)
    for _ in range(2):
        unit.convert_to_deploy()
        torch.testing.assert_close(unit(x), expected, rtol=1e-4, atol=1e-5)
    inner = "conv.1" if kernel == 2 else "conv"
    assert list(unit.state_dict()) == [f"{inner}.weight", f"{inner}.bias"]


@pytest.mark.parametrize(
    ("freeze_at", "frozen"), [(-1, ()), (0, ("stem.",)), (1, ("stem.", "stages.0."))]
)
def test_freeze_at_freezes_stem_and_first_stages(freeze_at, frozen):
    with torch.device("meta"):
        model = HGNetv2(name="L", freeze_at=freeze_at)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != (bool(frozen) and name.startswith(frozen)), name


def test_freeze_norm_applies_to_all_norms():
    for freeze_norm, kind in ((True, FrozenBatchNorm2d), (False, nn.BatchNorm2d)):
        with torch.device("meta"):
            model = HGNetv2(name="L", freeze_norm=freeze_norm)
        assert {type(m) for m in model.modules() if "Norm2d" in type(m).__name__} == {kind}


def test_pretrained_file_loads_into_frozen_norms(tmp_path, disturb_norms):
    source = disturb_norms(HGNetv2(name="L", freeze_norm=False))
    path = tmp_path / "hgnet.pth"
    torch.save(source.state_dict(), path)
    model = HGNetv2(name="L", freeze_at=0, freeze_norm=True, pretrained=str(path))
    expected = source.state_dict()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=0, msg=key)


def test_weights_of_another_size_are_rejected(tmp_path):
    path = tmp_path / "hgnet.pth"
    torch.save({"stem.stem1.conv.weight": torch.ones(32, 3, 3, 3)}, path)
    with (
        torch.device("meta"),
        pytest.raises(CheckpointError, match=rf"{path} contains another model: missing \["),
    ):
        HGNetv2(name="L", pretrained=str(path))


def test_return_idx_selects_stages():
    model = HGNetv2(name="L", return_idx=[0, 1, 2, 3]).eval()
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        every = model(x)
        model.return_idx = [1, 3]
        chosen = model(x)
    for mine, expected in zip(chosen, (every[1], every[3]), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=0)


def test_published_urls(models):
    urls = {
        value["backbone"]["name"]: value["backbone"]["pretrained_url"]
        for value in models.values()
        if value["backbone"]["kind"] == "HGNetv2"
    }
    assert urls == IMAGENET_WEIGHTS
