"""ResNet-vd against a forward pass written with functions, and its frozen parts."""

import re

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from rtdetrv2_pytorch.src.misc.errors import CheckpointError
from rtdetrv2_pytorch.src.nn.layers import FrozenBatchNorm2d
from rtdetrv2_pytorch.src.nn.presnet import IMAGENET_WEIGHTS, PResNet

BLOCKS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}


def conv_norm(state, key, x, stride=1):
    """Compute convolution and norm of the unit at `key` from its weights."""
    weight = state[f"{key}.conv.weight"]
    x = F.conv2d(x, weight, stride=stride, padding=(weight.shape[-1] - 1) // 2)
    norm = {k: state[f"{key}.norm.{k}"] for k in ("running_mean", "running_var", "weight", "bias")}
    return F.batch_norm(x, **norm, eps=1e-5)


def plain_resnet(state, depth, x):
    """Return the maps of all stages."""
    for name, stride in (("conv1_1", 2), ("conv1_2", 1), ("conv1_3", 1)):
        x = conv_norm(state, f"conv1.{name}", x, stride).relu()
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    maps = []
    for stage, num_blocks in enumerate(BLOCKS[depth]):
        for block in range(num_blocks):
            key = f"res_layers.{stage}.blocks.{block}"
            stride = 2 if stage > 0 and block == 0 else 1
            shortcut = x
            if block == 0 and stage == 0:
                shortcut = conv_norm(state, f"{key}.short", x)
            elif block == 0:
                pooled = F.avg_pool2d(x, 2, stride=2, ceil_mode=True)
                shortcut = conv_norm(state, f"{key}.short.conv", pooled)
            if depth < 50:
                x = conv_norm(state, f"{key}.branch2a", x, stride).relu()
                x = conv_norm(state, f"{key}.branch2b", x)
            else:
                x = conv_norm(state, f"{key}.branch2a", x).relu()
                x = conv_norm(state, f"{key}.branch2b", x, stride).relu()
                x = conv_norm(state, f"{key}.branch2c", x)
            x = (x + shortcut).relu()
        maps.append(x)
    return maps


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_features_match_reference_at_odd_sizes(depth, disturb_norms):
    model = disturb_norms(PResNet(depth=depth)).eval()
    x = torch.rand(2, 3, 70, 51)
    with torch.no_grad():
        found, expected = model(x), plain_resnet(model.state_dict(), depth, x)
    assert len(found) == 4
    for mine, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-3, atol=1e-3 * plain.abs().max().item())
    # 70 x 51 -> 35 x 26 -> 18 x 13 after the stem; then halved three times, rounding up.
    assert [tuple(m.shape[2:]) for m in found] == [(18, 13), (9, 7), (5, 4), (3, 2)]


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_blocks_channels_and_strides(depth):
    with torch.device("meta"):
        model = PResNet(depth=depth, return_idx=[1, 2, 3])
    assert [len(stage.blocks) for stage in model.res_layers] == BLOCKS[depth]
    assert model.out_channels == ([128, 256, 512] if depth < 50 else [512, 1024, 2048])
    assert model.out_strides == [8, 16, 32]
    maps = model(torch.empty(1, 3, 64, 96, device="meta"))
    assert [m.shape[1] for m in maps] == model.out_channels
    assert [(64 // m.shape[2], 96 // m.shape[3]) for m in maps] == [(s, s) for s in (8, 16, 32)]


def test_shortcut_projections():
    with torch.device("meta"):
        keys = PResNet(depth=18, freeze_norm=False).state_dict()
    weights = [re.sub(r"\.weight$", "", k) for k in keys if ".short." in k and k.endswith("weight")]
    assert weights == [
        "res_layers.0.blocks.0.short.conv",
        "res_layers.0.blocks.0.short.norm",
        *(
            f"res_layers.{stage}.blocks.0.short.conv.{part}"
            for stage in (1, 2, 3)
            for part in ("conv", "norm")
        ),
    ]
    assert tuple(keys["res_layers.0.blocks.0.short.conv.weight"].shape) == (64, 64, 1, 1)


def test_shortcut_averages_partial_windows():
    with torch.device("meta"):
        pool = PResNet(depth=18).res_layers[1].blocks[0].short.pool
    x = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    # 1 2 3 / 4 5 6 / 7 8 9: the last column and row are averaged over two cells and one cell.
    assert pool(x).tolist() == [[[[3.0, 4.5], [7.5, 9.0]]]]


def test_return_idx_selects_stages():
    model = PResNet(depth=18).eval()
    x = torch.rand(1, 3, 64, 32)
    with torch.no_grad():
        every = model(x)
        model.return_idx = [0, 3]
        chosen = model(x)
    for mine, expected in zip(chosen, (every[0], every[3]), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=0)


def test_num_stages_builds_first_stages():
    model = PResNet(depth=18, num_stages=2, return_idx=[1])
    assert len(model.res_layers) == 2
    assert (model.out_channels, model.out_strides) == ([128], [8])
    assert [tuple(m.shape) for m in model(torch.rand(1, 3, 32, 32))] == [(1, 128, 4, 4)]


@pytest.mark.parametrize(
    ("freeze_at", "frozen"),
    [
        (-1, set()),
        (0, {"conv1"}),
        (2, {"conv1", "res_layers.0", "res_layers.1"}),
    ],
)
def test_freeze_at_freezes_stem_and_first_stages(freeze_at, frozen):
    with torch.device("meta"):
        model = PResNet(depth=18, freeze_at=freeze_at, freeze_norm=False)
    parts = {"conv1": True, **{f"res_layers.{i}": True for i in range(4)}}
    for name, parameter in model.named_parameters():
        part = re.match(r"conv1|res_layers\.\d", name)[0]
        assert parameter.requires_grad == (part not in frozen), name
        parts.pop(part, None)
    assert parts == {}  # every part was compared


@pytest.mark.parametrize("freeze_norm", [True, False])
def test_freeze_norm_applies_to_all_norms(freeze_norm):
    with torch.device("meta"):
        model = PResNet(depth=50, freeze_norm=freeze_norm)
    kinds = {type(m) for m in model.modules() if "Norm2d" in type(m).__name__}
    assert kinds == {FrozenBatchNorm2d if freeze_norm else nn.BatchNorm2d}
    tracked = any(key.endswith("num_batches_tracked") for key in model.state_dict())
    assert tracked != freeze_norm


@pytest.fixture
def small():
    return {"depth": 18, "num_stages": 1, "return_idx": [0]}


@pytest.mark.parametrize("freeze_norm", [True, False])
def test_pretrained_file_loads_into_frozen_norms(tmp_path, small, freeze_norm, disturb_norms):
    source = disturb_norms(PResNet(**small, freeze_norm=False)).eval()
    path = tmp_path / "resnet.pth"
    torch.save(source.state_dict(), path)
    model = PResNet(**small, freeze_at=0, freeze_norm=freeze_norm, pretrained=str(path))
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, source.state_dict()[key], rtol=0, atol=0, msg=key)
    x = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(model.eval()(x)[0], source(x)[0])


def test_published_weights_load_from_cache(tmp_path, small, monkeypatch, disturb_norms):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".cache" / "supervisely" / "checkpoints"
    folder.mkdir(parents=True)
    source = disturb_norms(PResNet(**small))
    torch.save(source.state_dict(), folder / "ResNet18_vd_pretrained_from_paddle.pth")
    model = PResNet(**small, pretrained=True)
    weight = "res_layers.0.blocks.1.branch2b.norm.running_var"
    torch.testing.assert_close(model.state_dict()[weight], source.state_dict()[weight])


def test_weights_of_another_depth_are_rejected(tmp_path):
    path = tmp_path / "resnet.pth"
    torch.save(PResNet(depth=18, num_stages=1, return_idx=[0]).state_dict(), path)
    with (
        torch.device("meta"),
        pytest.raises(CheckpointError, match=rf"{path} contains another model: missing \["),
    ):
        PResNet(depth=34, pretrained=str(path))


def test_published_urls(models):
    urls = {
        value["backbone"]["depth"]: value["backbone"]["pretrained_url"]
        for value in models.values()
        if value["backbone"]["kind"] == "PResNet"
    }
    assert urls == IMAGENET_WEIGHTS
