"""HGNetv2, the backbone of the HGNetv2-L, X and H models.

Each block runs a chain of convolutions, concatenates the input and all intermediate results, and
reduces the channels, so that one block combines several receptive fields.
Source: PP-HGNetV2 of PaddleClas; weights converted from there.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..misc.ranges import StageIndex
from ..misc.weights import load_checkpoint, load_strict, model_state
from .layers import check_stages, freeze_batch_norms, fuse_conv_and_norm

_LAYERS_PER_BLOCK = 6


class StageSpec(NamedTuple):
    """A stage of blocks."""

    mid: int  # channels inside a block
    out: int
    num_blocks: int
    light: bool


# Channels inside and after the stem, then in and after the first stage; blocks of each stage.
_SPECS = {
    "L": (32, 48, 48, 128, (1, 1, 3, 1)),
    "X": (32, 64, 64, 128, (1, 2, 5, 2)),
    "H": (48, 96, 96, 192, (2, 3, 6, 3)),
}

_STORAGE = "https://github.com/lyuwenyu/storage/releases/download/v0.1/"
IMAGENET_WEIGHTS = {
    name: f"{_STORAGE}PPHGNetV2_{name}_ssld_pretrained_from_paddle.pth" for name in _SPECS
}


def stage_specs(name: str) -> tuple[tuple[int, int], list[StageSpec]]:
    """Return the channels inside and after the stem, and the stages of a size."""
    stem_mid, channels, mid, out, blocks = _SPECS[name]
    # Widths double per stage, and the last two stages are light.
    outs = (out, 512, 1024, 2048)
    stages = [StageSpec(mid * 2**i, outs[i], n, i >= 2) for i, n in enumerate(blocks)]
    return (stem_mid, channels), stages


class LearnableAffine(nn.Module):
    """One learnable scale and bias for a whole feature map, after the activation."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        return self.scale * x + self.bias


class ConvBnAct(nn.Module):
    """Convolution without bias, batch norm, optional ReLU and learnable affine (`use_lab`).

    Padding keeps the size at stride 1; even kernels pad zeros on the right and bottom only.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        groups: int = 1,
        use_act: bool = True,
        use_lab: bool = False,
    ) -> None:
        super().__init__()
        is_even = kernel_size % 2 == 0
        conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=0 if is_even else (kernel_size - 1) // 2,
            groups=groups,
            bias=False,
        )
        nn.init.kaiming_normal_(conv.weight)
        self.conv: nn.Module = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv) if is_even else conv
        self.bn: nn.Module = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU(inplace=True) if use_act else nn.Identity()
        self.lab = LearnableAffine() if use_act and use_lab else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H / stride, W / stride]."""
        return self.lab(self.act(self.bn(self.conv(x))))

    def convert_to_deploy(self) -> None:
        """Fold the norm into the convolution."""
        if isinstance(self.bn, nn.Identity):
            return
        if isinstance(self.conv, nn.Sequential):
            self.conv[1] = fuse_conv_and_norm(cast(nn.Conv2d, self.conv[1]), self.bn)
        else:
            self.conv = fuse_conv_and_norm(cast(nn.Conv2d, self.conv), self.bn)
        self.bn = nn.Identity()


class LightConvBnAct(nn.Module):
    """A 1x1 convolution followed by a depth-wise one: the cheap form of a 5x5 convolution."""

    def __init__(self, in_channels: int, out_channels: int, use_lab: bool) -> None:
        super().__init__()
        self.conv1 = ConvBnAct(in_channels, out_channels, 1, use_act=False, use_lab=use_lab)
        self.conv2 = ConvBnAct(out_channels, out_channels, 5, groups=out_channels, use_lab=use_lab)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H, W]."""
        return self.conv2(self.conv1(x))


class StemBlock(nn.Module):
    """Downsample by 4 with two branches: convolution and max pooling."""

    def __init__(self, mid_channels: int, out_channels: int, use_lab: bool) -> None:
        super().__init__()
        half = mid_channels // 2
        self.stem1 = ConvBnAct(3, mid_channels, 3, 2, use_lab=use_lab)
        self.stem2a = ConvBnAct(mid_channels, half, 2, use_lab=use_lab)
        self.stem2b = ConvBnAct(half, mid_channels, 2, use_lab=use_lab)
        self.stem3 = ConvBnAct(mid_channels * 2, mid_channels, 3, 2, use_lab=use_lab)
        self.stem4 = ConvBnAct(mid_channels, out_channels, 1, use_lab=use_lab)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, out, H / 4, W / 4]."""
        x = self.stem1(x)
        learned = self.stem2b(self.stem2a(x))
        pooled = F.max_pool2d(F.pad(x, (0, 1, 0, 1)), kernel_size=2, stride=1)
        return self.stem4(self.stem3(torch.cat((pooled, learned), dim=1)))


class HGBlock(nn.Module):
    """A chain of convolutions with aggregation of all intermediate results."""

    def __init__(self, in_channels: int, spec: StageSpec, shortcut: bool, use_lab: bool) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.layers = nn.ModuleList()
        channels = in_channels
        for _ in range(_LAYERS_PER_BLOCK):
            self.layers.append(
                LightConvBnAct(channels, spec.mid, use_lab)
                if spec.light
                else ConvBnAct(channels, spec.mid, 3, use_lab=use_lab)
            )
            channels = spec.mid
        total = in_channels + _LAYERS_PER_BLOCK * spec.mid
        self.aggregation_squeeze_conv = ConvBnAct(total, spec.out // 2, 1, use_lab=use_lab)
        self.aggregation_excitation_conv = ConvBnAct(spec.out // 2, spec.out, 1, use_lab=use_lab)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H, W]."""
        results = [x]
        for layer in self.layers:
            results.append(layer(results[-1]))
        out = self.aggregation_squeeze_conv(torch.cat(results, dim=1))
        out = self.aggregation_excitation_conv(out)
        return out + x if self.shortcut else out


class HGStage(nn.Module):
    """Blocks of one width after downsampling by 2, except in the first stage."""

    def __init__(self, in_channels: int, spec: StageSpec, downsample: bool, use_lab: bool) -> None:
        super().__init__()
        self.downsample = (
            ConvBnAct(in_channels, in_channels, 3, 2, groups=in_channels, use_act=False)
            if downsample
            else nn.Identity()
        )
        self.blocks = nn.ModuleList(
            HGBlock(in_channels if i == 0 else spec.out, spec, i > 0, use_lab)
            for i in range(spec.num_blocks)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H / 2, W / 2], or the same size without downsampling."""
        x = self.downsample(x)
        for block in self.blocks:
            x = block(x)
        return x


class HGNetv2(nn.Module):
    """HGNetv2 that returns the feature maps of several stages.

    Args:
        name: size of the network.
        use_lab: learnable affine after every activation; off in all published models.
        return_idx: stages to return; [1, 2, 3] are strides 8, 16, 32.
        freeze_at: 0 or more freezes the stem and that many stages; -1 nothing.
        freeze_norm: replace every batch norm by a frozen one.
        pretrained: True for ImageNet weights by URL, or a path.
    """

    def __init__(
        self,
        *,
        name: Literal["L", "X", "H"],
        use_lab: bool = False,
        return_idx: Sequence[StageIndex] = (1, 2, 3),
        freeze_at: int = -1,
        freeze_norm: bool = False,
        pretrained: bool | str = False,
    ) -> None:
        super().__init__()
        (stem_mid, channels), specs = stage_specs(name)
        self.return_idx = check_stages(return_idx, len(specs))
        self.stem = StemBlock(stem_mid, channels, use_lab)
        self.stages = nn.ModuleList()
        for i, spec in enumerate(specs):
            self.stages.append(HGStage(channels, spec, i > 0, use_lab))
            channels = spec.out

        self.out_channels = [specs[i].out for i in self.return_idx]
        self.out_strides = [4 * 2**i for i in self.return_idx]

        if freeze_at >= 0:
            for part in [self.stem, *self.stages[:freeze_at]]:
                part.requires_grad_(False)
        if freeze_norm:
            freeze_batch_norms(self)
        if pretrained:
            source = IMAGENET_WEIGHTS[name] if pretrained is True else pretrained
            load_strict(self, model_state(load_checkpoint(source)), source=source)

    def forward(self, x: Tensor) -> list[Tensor]:
        """[B, 3, H, W] -> one [B, C, H / stride, W / stride] per entry of `return_idx`."""
        x = self.stem(x)
        features = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.return_idx:
                features.append(x)
        return features
