"""Multi-scale deformable attention: each query samples a few points around its box.

Version 2 allows a different number of points per level and discrete sampling without
interpolation, for runtimes without GridSample. Source: arXiv:2407.17140, section 3.1;
deformable attention: arXiv:2010.04159.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ...misc.text import counted

Sampling = Literal["default", "discrete"]

# An offset of 1 is this fraction of the box size, divided by the points of the level.
_OFFSET_SCALE = 0.5


def sample_bilinear(level: Tensor, locations: Tensor) -> Tensor:
    """Interpolate between the four cells around each point, with zeros outside the map.

    [N, C, H, W] and [N, P, Q, 2] (x, y), 0..1 across the map -> [N, C, P, Q].
    """
    return F.grid_sample(
        level, 2 * locations - 1, mode="bilinear", padding_mode="zeros", align_corners=False
    )


def sample_nearest(level: Tensor, locations: Tensor) -> Tensor:
    """Take the cell at trunc(location * size + 0.5), clamped to the map.

    The published discrete weights were trained with the offset of 0.5: the index is that of the
    nearest cell *corner*, not of the cell that contains the point. Shapes as in `sample_bilinear`.
    """
    channels, height, width = level.shape[1:]
    x = (locations[..., 0] * width + 0.5).to(torch.int64).clamp(0, width - 1)
    y = (locations[..., 1] * height + 0.5).to(torch.int64).clamp(0, height - 1)
    index = (y * width + x).flatten(1)[:, None].expand(-1, channels, -1)
    # torch's exporters turn sizes read from a shape into constants: -1 stays dynamic.
    return level.flatten(2).gather(2, index).reshape(-1, channels, *locations.shape[1:3])


class MSDeformableAttention(nn.Module):
    """Deformable attention over several levels.

    Args:
        embed_dim: features of a query (D).
        num_heads: heads (M).
        num_levels: feature levels (L).
        num_points: points per head, for each level or one number for all (P is their sum).
        method: bilinear ("default") or nearest ("discrete") sampling. Nearest sampling gives the
            offsets no gradient, so they are frozen then.
    """

    num_points_scale: Tensor

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        num_levels: int,
        num_points: int | Sequence[int],
        method: Sampling,
    ) -> None:
        super().__init__()
        points = [num_points] * num_levels if isinstance(num_points, int) else list(num_points)
        if len(points) != num_levels:
            raise ValueError(
                f"num_points {points}: give one number for each of {counted(num_levels, 'level')}"
            )
        self.num_heads = num_heads
        self.num_points = points
        self._sample = sample_bilinear if method == "default" else sample_nearest

        scale = torch.tensor([1 / n for n in points for _ in range(n)])
        self.register_buffer("num_points_scale", scale)  # [P]
        total = num_heads * sum(points)
        self.sampling_offsets = nn.Linear(embed_dim, total * 2)
        self.attention_weights = nn.Linear(embed_dim, total)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.output_proj = nn.Linear(embed_dim, embed_dim)
        self._reset_parameters()
        if method == "discrete":
            self.sampling_offsets.requires_grad_(False)

    def _reset_parameters(self) -> None:
        # Each head starts with its own direction and points at increasing distances.
        angle = torch.arange(self.num_heads) * (2.0 * math.pi / self.num_heads)
        direction = torch.stack((angle.cos(), angle.sin()), dim=-1)  # [M, 2]
        direction = direction / direction.abs().amax(dim=-1, keepdim=True)
        distance = torch.cat([torch.arange(1, n + 1) for n in self.num_points])  # [P]
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(
                (direction[:, None] * distance[None, :, None]).flatten()
            )
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for proj in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(proj.weight)
            nn.init.zeros_(proj.bias)

    def forward(
        self,
        query: Tensor,
        reference_boxes: Tensor,
        memory: Tensor,
        level_sizes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """Sample around the reference boxes and compute the weighted sum.

        Args:
            query: [B, Q, D].
            reference_boxes: [B, Q, 4] cxcywh 0..1.
            memory: [B, S, D] cells of all levels, row-major, finest level first.
            level_sizes: (height, width) of each level in cells.

        Returns:
            [B, Q, D].
        """
        batch, num_queries, dim = query.shape
        heads, total = self.num_heads, sum(self.num_points)

        # Locations and weights stay in float32 under autocast: half precision would move points by
        # pixels, and mixed types are slow.
        offsets = self.sampling_offsets(query).float().view(batch, num_queries, heads, total, 2)
        weights = self.attention_weights(query).float().view(batch, num_queries, heads, total)
        weights = weights.softmax(dim=-1)
        center = reference_boxes[:, :, None, None, :2]
        reach = reference_boxes[:, :, None, None, 2:] * _OFFSET_SCALE
        locations = center + offsets * self.num_points_scale[:, None] * reach  # [B, Q, M, P, 2]

        # Heads become part of the batch: one sampling call per level. Queries are the last
        # dimension, which makes the sums over the points faster.
        locations = locations.permute(0, 2, 3, 1, 4).flatten(0, 1)  # [B*M, P, Q, 2]
        weights = weights.permute(0, 2, 3, 1).flatten(0, 1)[:, None]  # [B*M, 1, P, Q]
        value = self.value_proj(memory).float()
        value = value.transpose(1, 2).reshape(batch * heads, dim // heads, -1)
        levels = value.split([h * w for h, w in level_sizes], dim=-1)
        mixed = torch.zeros((), device=query.device)
        for level, size, points, weight in zip(
            levels,
            level_sizes,
            locations.split(self.num_points, dim=1),
            weights.split(self.num_points, dim=2),
            strict=True,
        ):
            mixed = mixed + (self._sample(level.unflatten(-1, size), points) * weight).sum(-2)
        return self.output_proj(mixed.view(batch, dim, num_queries).transpose(1, 2))
