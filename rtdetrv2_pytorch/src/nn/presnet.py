"""ResNet-vd, the backbone of the S, M, L and X models.

"vd" differs from the original ResNet in two places: the stem has three 3x3 convolutions, and the
shortcut of a downsampling block applies average pooling before its 1x1 convolution instead of a
strided convolution. Source: Bag of Tricks, arXiv:1812.01187 (ResNet-D).
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated, Literal

import torch.nn.functional as F  # noqa: N812
from annotated_types import Interval
from torch import Tensor, nn

from ..misc.ranges import StageIndex
from ..misc.weights import load_checkpoint, load_strict, model_state
from .layers import (
    Activation,
    ConvNormLayer,
    check_stages,
    freeze_batch_norms,
    make_activation,
)

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
WIDTHS = (64, 128, 256, 512)
_STORAGE = "https://github.com/lyuwenyu/storage/releases/download/v0.1/"
IMAGENET_WEIGHTS = {
    18: _STORAGE + "ResNet18_vd_pretrained_from_paddle.pth",
    34: _STORAGE + "ResNet34_vd_pretrained_from_paddle.pth",
    50: _STORAGE + "ResNet50_vd_ssld_v2_pretrained_from_paddle.pth",
    101: _STORAGE + "ResNet101_vd_ssld_pretrained_from_paddle.pth",
}


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Project the input of a stage's first block to the shape of its output."""
    if stride == 1:
        return ConvNormLayer(in_channels, out_channels, 1)
    return nn.Sequential(
        OrderedDict(
            pool=nn.AvgPool2d(2, 2, ceil_mode=True),
            conv=ConvNormLayer(in_channels, out_channels, 1),
        )
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut; depth 18 and 34."""

    expansion = 1

    def __init__(
        self, in_channels: int, width: int, stride: int, project: bool, act: Activation
    ) -> None:
        super().__init__()
        self.short = _shortcut(in_channels, width, stride) if project else nn.Identity()
        self.branch2a = ConvNormLayer(in_channels, width, 3, stride, act=act)
        self.branch2b = ConvNormLayer(width, width, 3)
        self.act = make_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, width, H / stride, W / stride]."""
        return self.act(self.branch2b(self.branch2a(x)) + self.short(x))


class BottleNeck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with a shortcut; depth 50 and 101."""

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, stride: int, project: bool, act: Activation
    ) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.branch2a = ConvNormLayer(in_channels, width, 1, act=act)
        self.branch2b = ConvNormLayer(width, width, 3, stride, act=act)
        self.branch2c = ConvNormLayer(width, out_channels, 1)
        self.short = _shortcut(in_channels, out_channels, stride) if project else nn.Identity()
        self.act = make_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, 4 * width, H / stride, W / stride]."""
        residual = self.branch2c(self.branch2b(self.branch2a(x)))
        return self.act(residual + self.short(x))


def block_of(depth: int) -> type[BasicBlock | BottleNeck]:
    """Return the block of a depth."""
    return BottleNeck if depth >= 50 else BasicBlock


class Stage(nn.Module):
    """Blocks of one width; the first one changes size and channels."""

    def __init__(
        self,
        block: type[BasicBlock | BottleNeck],
        num_blocks: int,
        in_channels: int,
        width: int,
        stride: int,
        act: Activation,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for i in range(num_blocks):
            first = i == 0
            self.blocks.append(block(in_channels, width, stride if first else 1, first, act))
            in_channels = width * block.expansion

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H / stride, W / stride]."""
        for block in self.blocks:
            x = block(x)
        return x


class PResNet(nn.Module):
    """ResNet-vd that returns the feature maps of several stages.

    Args:
        depth: 18, 34, 50 or 101.
        variant: all published models use "d".
        num_stages: how many of the four stages to build.
        return_idx: stages to return; [1, 2, 3] are strides 8, 16, 32.
        act: activation.
        freeze_at: 0 or more freezes the stem and that many stages; -1 nothing.
        freeze_norm: replace every batch norm by a frozen one.
        pretrained: True for ImageNet weights by URL, or a path.
    """

    def __init__(
        self,
        *,
        depth: Literal[18, 34, 50, 101],
        variant: Literal["d"] = "d",
        num_stages: Annotated[int, Interval(ge=1, le=4)] = 4,
        return_idx: Sequence[StageIndex] = (0, 1, 2, 3),
        act: Activation = "relu",
        freeze_at: int = -1,
        freeze_norm: bool = True,
        pretrained: bool | str = False,
    ) -> None:
        super().__init__()
        self.return_idx = check_stages(return_idx, num_stages)
        self.conv1 = nn.Sequential(
            OrderedDict(
                conv1_1=ConvNormLayer(3, 32, 3, 2, act=act),
                conv1_2=ConvNormLayer(32, 32, 3, act=act),
                conv1_3=ConvNormLayer(32, 64, 3, act=act),
            )
        )
        block = block_of(depth)
        self.res_layers = nn.ModuleList()
        channels = 64
        for i in range(num_stages):
            stride = 1 if i == 0 else 2
            self.res_layers.append(Stage(block, BLOCKS[depth][i], channels, WIDTHS[i], stride, act))
            channels = WIDTHS[i] * block.expansion

        self.out_channels = [WIDTHS[i] * block.expansion for i in self.return_idx]
        self.out_strides = [4 * 2**i for i in self.return_idx]

        if freeze_at >= 0:
            for part in [self.conv1, *self.res_layers[:freeze_at]]:
                part.requires_grad_(False)
        if freeze_norm:
            freeze_batch_norms(self)
        if pretrained:
            source = IMAGENET_WEIGHTS[depth] if pretrained is True else pretrained
            load_strict(self, model_state(load_checkpoint(source)), source=source)

    def forward(self, x: Tensor) -> list[Tensor]:
        """[B, 3, H, W] -> one [B, C, H / stride, W / stride] per entry of `return_idx`."""
        x = F.max_pool2d(self.conv1(x), kernel_size=3, stride=2, padding=1)
        features = []
        for i, stage in enumerate(self.res_layers):
            x = stage(x)
            if i in self.return_idx:
                features.append(x)
        return features
