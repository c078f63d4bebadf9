"""Deformable attention against loops over points with explicit interpolation."""

import math

import pytest
import torch

from rtdetrv2_pytorch.src.zoo.rtdetr.deformable_attention import (
    MSDeformableAttention,
    sample_bilinear,
    sample_nearest,
)

SIZES = [(3, 5), (2, 2)]  # not square, so that swapped width and height are detected


def bilinear(level, x, y):
    """Value of a map [H, W, C] at (x, y) in 0..1: cell (i, j) has its center at (j + 0.5) / W."""
    height, width, channels = level.shape
    x, y = x * width - 0.5, y * height - 0.5
    left, top = math.floor(x), math.floor(y)
    total = torch.zeros(channels)
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < height and 0 <= column < width:  # zero outside
                share = (1 - abs(x - column)) * (1 - abs(y - row))
                total = total + share * level[row, column]
    return total


def nearest(level, x, y):
    height, width, _ = level.shape
    column = min(max(math.trunc(x * width + 0.5), 0), width - 1)
    row = min(max(math.trunc(y * height + 0.5), 0), height - 1)
    return level[row, column]


def plain_attention(module, query, boxes, memory, sizes, num_points, sample):
    """One image, one query, one head, one level, one point at a time."""
    batch, num_queries, dim = query.shape
    heads = module.num_heads
    width = dim // heads
    value = module.value_proj(memory)
    offsets = module.sampling_offsets(query).view(batch, num_queries, heads, -1, 2)
    logits = module.attention_weights(query).view(batch, num_queries, heads, -1)
    mixed = torch.zeros(batch, num_queries, dim)
    for b in range(batch):
        for q in range(num_queries):
            cx, cy, w, h = boxes[b, q].tolist()
            for m in range(heads):
                share = logits[b, q, m].softmax(0)  # over the points of all levels
                point, start = 0, 0
                for (rows, columns), count in zip(sizes, num_points, strict=True):
                    cells = value[b, start : start + rows * columns, m * width : (m + 1) * width]
                    level = cells.view(rows, columns, width)
                    for _ in range(count):
                        dx, dy = offsets[b, q, m, point].tolist()
                        x, y = cx + dx / count * w * 0.5, cy + dy / count * h * 0.5
                        mixed[b, q, m * width : (m + 1) * width] += share[point] * sample(
                            level, x, y
                        )
                        point += 1
                    start += rows * columns
    return module.output_proj(mixed)


@pytest.mark.parametrize(
    ("method", "sample"),
    [("default", bilinear), ("discrete", nearest)],
    ids=["default", "discrete"],
)
@pytest.mark.parametrize("num_points", [2, [1, 3]])
@torch.no_grad()
def test_matches_loop(method, sample, num_points, disturb):
    module = disturb(MSDeformableAttention(8, 2, 2, num_points, method))
    module.sampling_offsets.weight *= 4  # some points beyond the border
    query = torch.randn(2, 6, 8)
    boxes = torch.rand(2, 6, 4)
    memory = torch.randn(2, 15 + 4, 8)
    points = [num_points] * 2 if isinstance(num_points, int) else num_points
    expected = plain_attention(module, query, boxes, memory, SIZES, points, sample)
    found = module(query, boxes, memory, SIZES)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


# 1 2 3 / 4 5 6 as a map, sampled at points (x, y).
MAP = torch.arange(1.0, 7.0).view(1, 1, 2, 3)


def sampled(function, *points):
    return function(MAP, torch.tensor(points).view(1, 1, -1, 2)).flatten()


def test_bilinear_by_hand():
    found = sampled(
        sample_bilinear,
        (1 / 6, 0.25),  # center of the first cell
        (1 / 3, 0.5),  # the corner between four cells
        (0.5, 0.25),  # center of the second cell
        (0.0, 0.25),  # at the border: half of it is outside, where the map is zero
        (2.0, 0.5),  # far outside
    )
    torch.testing.assert_close(found, torch.tensor([1.0, 3.0, 2.0, 0.5, 0.0]))


def test_nearest_by_hand_with_clamping():
    found = sampled(
        sample_nearest,
        (0.1, 0.1),  # trunc(0.3 + 0.5) = 0, trunc(0.2 + 0.5) = 0
        (0.2, 0.1),  # trunc(0.6 + 0.5) = 1: already the second column
        (0.9, 0.2),  # trunc(2.7 + 0.5) = 3 -> 2, the last column though there are two rows
        (0.2, 0.8),  # row trunc(1.6 + 0.5) = 2 -> 1
        (-0.4, -3.0),  # truncated toward zero, then clamped
        (9.0, 9.0),
    )
    assert found.tolist() == [1, 2, 3, 5, 1, 6]


def test_initial_offsets_by_hand():
    module = MSDeformableAttention(8, 8, 2, [2, 1], "default")
    directions = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    expected = [[(dx * n, dy * n) for n in (1, 2, 1)] for dx, dy in directions]
    bias = module.sampling_offsets.bias.view(8, 3, 2)
    torch.testing.assert_close(bias, torch.tensor(expected).float(), rtol=0, atol=1e-5)
    assert module.sampling_offsets.weight.abs().max() == 0


def test_initial_weights_are_uniform_over_points():
    module = MSDeformableAttention(32, 4, 3, 4, "default")
    assert module.attention_weights.weight.abs().max() == 0
    assert module.attention_weights.bias.abs().max() == 0
    bound = math.sqrt(6 / 64)
    for linear in (module.value_proj, module.output_proj):
        assert 0.95 * bound < linear.weight.abs().max() <= bound
        assert linear.bias.abs().max() == 0
    # All cells are equal, so the mean of any samples inside the map is that value.
    memory = torch.randn(1, 1, 32).expand(1, 64 + 16 + 4, 32)
    boxes = torch.tensor([[[0.5, 0.5, 0.1, 0.1]]])
    found = module(torch.randn(1, 1, 32), boxes, memory, [(8, 8), (4, 4), (2, 2)])
    expected = module.output_proj(module.value_proj(memory[:, :1]))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_scalar_num_points_applies_to_all_levels():
    one, listed = (MSDeformableAttention(8, 2, 3, points, "default") for points in (4, [4, 4, 4]))
    listed.load_state_dict(one.state_dict(), strict=True)
    inputs = (torch.randn(1, 3, 8), torch.rand(1, 3, 4), torch.randn(1, 14, 8))
    sizes = [(3, 3), (2, 2), (1, 1)]
    torch.testing.assert_close(one(*inputs, sizes), listed(*inputs, sizes), rtol=0, atol=0)


def test_offsets_are_divided_by_points_of_level():
    module = MSDeformableAttention(8, 2, 2, [1, 4], "default")
    assert module.num_points_scale.tolist() == [1.0, 0.25, 0.25, 0.25, 0.25]
    assert "num_points_scale" in module.state_dict()


def test_wrong_number_of_point_counts_is_rejected():
    with pytest.raises(ValueError, match=r"num_points \[4, 4\]: give one number for each of 3"):
        MSDeformableAttention(8, 2, 3, [4, 4], "default")


@pytest.mark.parametrize(("method", "trains"), [("default", True), ("discrete", False)])
def test_offsets_are_frozen_for_discrete_sampling(method, trains, disturb):
    module = disturb(MSDeformableAttention(8, 2, 1, 2, method))
    module(
        torch.randn(1, 2, 8), torch.rand(1, 2, 4), torch.randn(1, 6, 8), [(2, 3)]
    ).sum().backward()
    for parameter in module.sampling_offsets.parameters():
        assert parameter.requires_grad == trains
        assert (parameter.grad is not None and parameter.grad.abs().max() > 0) == trains
    assert module.value_proj.weight.grad.abs().max() > 0
    assert module.attention_weights.weight.grad.abs().max() > 0


def test_reference_box_has_gradient(disturb):
    module = disturb(MSDeformableAttention(8, 2, 1, 2, "default"))
    query, memory = torch.randn(1, 2, 8), torch.randn(1, 12, 8)
    boxes = (torch.rand(1, 2, 4) * 0.4 + 0.3).requires_grad_()
    (gradient,) = torch.autograd.grad(module(query, boxes, memory, [(3, 4)]).sum(), boxes)
    step = 1e-2  # against a finite difference
    for coordinate in range(4):
        move = torch.zeros(4)
        move[coordinate] = step
        with torch.no_grad():
            ahead = module(query, boxes + move, memory, [(3, 4)]).sum()
            behind = module(query, boxes - move, memory, [(3, 4)]).sum()
        expected = (ahead - behind) / (2 * step)
        torch.testing.assert_close(gradient[..., coordinate].sum(), expected, rtol=0.1, atol=1e-2)


def test_autocast_does_not_move_points():
    module = MSDeformableAttention(8, 1, 1, 1, "default")
    torch.nn.init.eye_(module.value_proj.weight)
    torch.nn.init.eye_(module.output_proj.weight)
    torch.nn.init.zeros_(module.sampling_offsets.bias)
    # One cell of 200 holds 1 and is sampled at its center. The neighboring bfloat16 numbers 0.6016
    # and 0.6055 are 0.19 and 0.61 cells away.
    memory = torch.zeros(1, 200, 8)
    memory[:, 120] = 1
    boxes = torch.tensor([[[120.5 / 200, 0.5, 0.1, 0.1]]])
    with torch.autocast("cpu", torch.bfloat16):
        found = module(torch.zeros(1, 1, 8).bfloat16(), boxes, memory, [(1, 200)])
    assert found.dtype == torch.bfloat16
    assert found.float().mean().item() == pytest.approx(1.0, abs=0.01)
