"""The hybrid encoder: attention in the coarsest map, convolutions between the maps.

The cost of attention is quadratic in the number of cells, so only the coarsest level uses it
(AIFI). Levels exchange information through top-down and bottom-up convolutions (CCFF).
Source: arXiv:2304.08069, section 4.2.
"""

import copy
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ...misc.ranges import Fraction, NonNegativeInt, PositiveInt
from ...nn.layers import Activation, ConvNormLayer, SelfAttention, make_activation


class RepVggBlock(nn.Module):
    """Parallel 3x3 and 1x1 convolutions, which `convert_to_deploy` fuses into one 3x3.

    Source: RepVGG, arXiv:2101.03697 (without its identity branch).
    """

    def __init__(self, in_channels: int, out_channels: int, act: Activation) -> None:
        super().__init__()
        self.conv1 = ConvNormLayer(in_channels, out_channels, 3)
        self.conv2 = ConvNormLayer(in_channels, out_channels, 1)
        self.act = make_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H, W]."""
        if hasattr(self, "conv"):
            return self.act(self.conv(x))
        return self.act(self.conv1(x) + self.conv2(x))

    def convert_to_deploy(self) -> None:
        """Fuse both branches into `conv` and delete them."""
        if hasattr(self, "conv"):
            return
        self.conv1.convert_to_deploy()
        self.conv2.convert_to_deploy()
        self.conv, small = self.conv1.conv, self.conv2.conv
        with torch.no_grad():
            self.conv.weight += F.pad(small.weight, (1, 1, 1, 1))
            self.conv.bias += small.bias  # type: ignore[operator]
        del self.conv1, self.conv2


class CSPRepLayer(nn.Module):
    """Fuse two concatenated maps with two paths, one of them with RepVGG blocks.

    The inner width is the fraction `expansion` of `out_channels`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: int,
        expansion: float,
        act: Activation,
    ) -> None:
        super().__init__()
        hidden = int(out_channels * expansion)
        self.conv1 = ConvNormLayer(in_channels, hidden, 1, act=act)
        self.conv2 = ConvNormLayer(in_channels, hidden, 1, act=act)
        self.bottlenecks = nn.Sequential(
            *(RepVggBlock(hidden, hidden, act) for _ in range(num_blocks))
        )
        self.conv3 = (
            nn.Identity()
            if hidden == out_channels
            else ConvNormLayer(hidden, out_channels, 1, act=act)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H, W]."""
        return self.conv3(self.bottlenecks(self.conv1(x)) + self.conv2(x))


class TransformerEncoderLayer(nn.Module):
    """Post-norm transformer layer with the positional embedding on queries and keys only."""

    def __init__(
        self, dim: int, nhead: int, dim_feedforward: int, dropout: float, act: Activation
    ) -> None:
        super().__init__()
        self.self_attn = SelfAttention(dim, nhead, dropout)
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.act = make_activation(act)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """[B, S, D] tokens and [1, S, D] positions -> [B, S, D]."""
        x = self.norm1(x + self.dropout(self.self_attn(x, position)))
        hidden = self.dropout(self.act(self.linear1(x)))
        return self.norm2(x + self.dropout(self.linear2(hidden)))


class TransformerEncoder(nn.Module):
    """Stack of layers with identical initial weights."""

    def __init__(self, layer: TransformerEncoderLayer, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """[B, S, D] tokens and [1, S, D] positions -> [B, S, D]."""
        for layer in self.layers:
            x = layer(x, position)
        return x


def sincos_position_embedding(
    height: int, width: int, dim: int, temperature: float, device: torch.device | None = None
) -> Tensor:
    """Return the sine-cosine position embedding for tokens in row-major order.

    The published weights were trained on square maps with [sin row, cos row, sin column,
    cos column]; the order is the same at any height and width.

    Args:
        height: rows of the map.
        width: columns of the map.
        dim: features, divisible by 4.
        temperature: base of the wavelengths.
        device: device of the result.

    Returns:
        [1, H * W, D] float32.
    """
    quarter = dim // 4
    exponents = torch.arange(quarter, dtype=torch.float32, device=device) / quarter
    omega = 1.0 / temperature**exponents
    rows = torch.arange(height, dtype=torch.float32, device=device)[:, None] * omega
    columns = torch.arange(width, dtype=torch.float32, device=device)[:, None] * omega
    row_part = torch.cat((rows.sin(), rows.cos()), dim=1)[:, None].expand(-1, width, -1)
    column_part = torch.cat((columns.sin(), columns.cos()), dim=1)[None].expand(height, -1, -1)
    return torch.cat((row_part, column_part), dim=2).reshape(1, height * width, dim)


class HybridEncoder(nn.Module):
    """Project the backbone's maps to one width and exchange information between them.

    Args:
        in_channels: channels of the backbone's maps, finest first.
        feat_strides: their strides.
        hidden_dim: channels of every output map (D).
        nhead: attention heads.
        dim_feedforward: inner width of the transformer layer.
        dropout: fraction dropped in training.
        enc_act: activation of the transformer layer.
        use_encoder_idx: levels that get attention.
        num_encoder_layers: transformer layers per such level.
        pe_temperature: base of the positional embedding's wavelengths.
        expansion: inner width of the fusion blocks as a fraction of D.
        depth_mult: scales the three RepVGG blocks of a fusion block.
        act: activation of the convolutions.
        eval_spatial_size: (height, width) of evaluation images, for which the positional embedding
            is precomputed. Other sizes work, too.
        version: layout of the weights; "v2" is the published one.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int] = (512, 1024, 2048),
        feat_strides: Sequence[int] = (8, 16, 32),
        hidden_dim: PositiveInt = 256,
        nhead: PositiveInt = 8,
        dim_feedforward: PositiveInt = 1024,
        dropout: Fraction = 0.0,
        enc_act: Activation = "gelu",
        use_encoder_idx: Sequence[int] = (2,),
        num_encoder_layers: NonNegativeInt = 1,
        pe_temperature: float = 10000,
        expansion: float = 1.0,
        depth_mult: float = 1.0,
        act: Activation = "silu",
        eval_spatial_size: tuple[int, int] | None = None,
        version: Literal["v2"] = "v2",
    ) -> None:
        super().__init__()
        self.hidden_dim = hidden_dim
        self.use_encoder_idx = list(use_encoder_idx) if num_encoder_layers > 0 else []
        self.pe_temperature = pe_temperature
        self.out_channels = [hidden_dim] * len(in_channels)
        self.out_strides = list(feat_strides)

        self.input_proj = nn.ModuleList(ConvNormLayer(c, hidden_dim, 1) for c in in_channels)
        self.encoder = nn.ModuleList(
            TransformerEncoder(
                TransformerEncoderLayer(hidden_dim, nhead, dim_feedforward, dropout, enc_act),
                num_encoder_layers,
            )
            for _ in self.use_encoder_idx
        )
        num_blocks = round(3 * depth_mult)
        steps = range(len(in_channels) - 1)
        self.lateral_convs = nn.ModuleList(
            ConvNormLayer(hidden_dim, hidden_dim, 1, act=act) for _ in steps
        )
        self.fpn_blocks = nn.ModuleList(
            CSPRepLayer(2 * hidden_dim, hidden_dim, num_blocks, expansion, act) for _ in steps
        )
        self.downsample_convs = nn.ModuleList(
            ConvNormLayer(hidden_dim, hidden_dim, 3, 2, act=act) for _ in steps
        )
        self.pan_blocks = nn.ModuleList(
            CSPRepLayer(2 * hidden_dim, hidden_dim, num_blocks, expansion, act) for _ in steps
        )
        self._eval_spatial_size = eval_spatial_size
        if eval_spatial_size is not None:
            height, width = eval_spatial_size
            for level in self.use_encoder_idx:
                stride = self.out_strides[level]
                embedding = self._position_embedding(height // stride, width // stride)
                self.register_buffer(f"pos_embed{level}", embedding, persistent=False)

    def _position_embedding(
        self, height: int, width: int, device: torch.device | None = None
    ) -> Tensor:
        return sincos_position_embedding(
            height, width, self.hidden_dim, self.pe_temperature, device
        )

    def _attend(self, feature: Tensor, encoder: nn.Module, level: int) -> Tensor:
        """Run the transformer over one map [B, D, H, W]."""
        batch, dim, height, width = feature.shape
        stride = self.out_strides[level]
        if self._eval_spatial_size == (height * stride, width * stride):
            position = getattr(self, f"pos_embed{level}")
        else:
            position = self._position_embedding(height, width, feature.device)
        tokens = encoder(feature.flatten(2).transpose(1, 2), position.to(feature.dtype))
        return tokens.transpose(1, 2).reshape(batch, dim, height, width)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """One [B, C, H, W] per level, finest first -> as many [B, D, H, W]."""
        maps = [proj(feature) for proj, feature in zip(self.input_proj, features, strict=True)]
        for encoder, level in zip(self.encoder, self.use_encoder_idx, strict=True):
            maps[level] = self._attend(maps[level], encoder, level)

        # Top-down: each level passes on its lateral output, which the bottom-up path also uses
        # instead of the level's map.
        last = len(maps) - 1
        merged = maps[last]
        laterals: list[Tensor] = []
        for k in range(last):
            lateral = self.lateral_convs[k](merged)
            laterals.append(lateral)
            upsampled = F.interpolate(lateral, scale_factor=2.0, mode="nearest")
            merged = self.fpn_blocks[k](torch.cat((upsampled, maps[last - 1 - k]), dim=1))

        # Bottom-up.
        outputs = [merged]
        for k in range(last):
            downsampled = self.downsample_convs[k](outputs[-1])
            outputs.append(
                self.pan_blocks[k](torch.cat((downsampled, laterals[last - 1 - k]), dim=1))
            )
        return outputs
