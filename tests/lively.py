"""Detectors with random weights that answer to what they see, without any training.

Fresh weights give every query of every image nearly the same box and score: a test could not tell
images, slots or queries apart.
"""

import re

import torch
import torch.nn.functional as F  # noqa: N812
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

_FIXED = r"anchors$|num_points_scale$|pos_embed\d$|num_batches_tracked$"  # what follows from sizes


def pictures(count: int, size_hw: tuple[int, int], seed: int = 0) -> Tensor:
    """Blots of colour, different in every picture: [count, 3, H, W] float 0..1."""
    generator = torch.Generator().manual_seed(seed)
    blots = torch.rand(count, 3, 4, 6, generator=generator)
    smooth = F.interpolate(blots, size_hw, mode="bilinear", align_corners=False)
    return (smooth + 0.2 * torch.rand(count, 3, *size_hw, generator=generator)).clamp(0, 1)


@torch.no_grad()
def enliven(model: nn.Module, size_hw: tuple[int, int], seed: int = 0) -> nn.Module:
    """Random weights whose activations keep their scale, with statistics of real activations."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if not value.is_floating_point() or re.search(_FIXED, name):
            continue
        if value.dim() > 1:
            gain = 2.0 if re.search(r"score_head|sampling_offsets", name) else 1.0
            value.normal_(generator=generator).mul_(gain / value[0].numel() ** 0.5)
        elif name.endswith("running_var") or (name.endswith("weight") and "norm" in name):
            value.uniform_(0.7, 1.3, generator=generator)
        else:
            value += 0.1 * torch.randn(value.shape, generator=generator)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    model.eval()
    for norm in norms:
        norm.train()
        norm.momentum = None  # average over all of the batch
        norm.reset_running_stats()
    model(pictures(4, size_hw, seed=seed + 1))
    return model.eval()


def assert_same_detections(found, expected, *, score: float = 1e-3, pixels: float = 0.5) -> None:
    """In every image each detection has a counterpart: same label, about the same score and box.

    Of two whose scores are all but equal a last bit decides which one comes first, and of the last
    one, whether it is there at all.

    Args:
        found: labels [B, N], boxes [B, N, 4] and scores [B, N], best first.
        expected: the same.
        score: largest difference of scores.
        pixels: largest difference of a corner.
    """
    torch.testing.assert_close(found[2], expected[2], rtol=0, atol=score)
    for one in zip(*found, *expected, strict=True):
        labels, boxes, scores, want_labels, want_boxes, want_scores = one
        is_same = labels[:, None] == want_labels
        is_same &= (scores[:, None] - want_scores).abs() <= score
        is_same &= (boxes[:, None] - want_boxes).abs().amax(-1) <= pixels
        pairs = is_same[linear_sum_assignment(is_same.numpy(), maximize=True)]
        assert pairs.sum() >= (scores > scores[-1] + score / 10).sum()
