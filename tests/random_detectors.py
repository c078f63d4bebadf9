"""Untrained detectors whose output depends on the image.

With initial weights, all queries of all images have nearly the same box and score, so that tests
could not distinguish images or queries.
"""

import re
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import merge
from tests.tiny import CONFIGS, NETWORK, SMALL_BACKBONE

SIZE_HW = (96, 160)
NAMES = ["cat", "dog", "owl"]
_FIXED = r"anchors$|num_points_scale$|pos_embed\d$|num_batches_tracked$"  # depends on sizes only


def random_images(count: int, size_hw: tuple[int, int], seed: int = 0) -> Tensor:
    """Return random smooth images: [count, 3, H, W] float 0..1."""
    generator = torch.Generator().manual_seed(seed)
    blots = torch.rand(count, 3, 4, 6, generator=generator)
    smooth = F.interpolate(blots, size_hw, mode="bilinear", align_corners=False)
    return (smooth + 0.2 * torch.rand(count, 3, *size_hw, generator=generator)).clamp(0, 1)


@torch.no_grad()
def randomize_weights(model: nn.Module, size_hw: tuple[int, int], seed: int = 0) -> nn.Module:
    """Randomize weights, keep the scale of activations and recompute norm statistics."""
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
        norm.momentum = None  # average over the batch
        norm.reset_running_stats()
    model(random_images(4, size_hw, seed=seed + 1))
    return model.eval()


def save_random_detector(
    path: Path,
    config: str = "rtdetrv2_r18vd_120e_coco",
    size_hw: tuple[int, int] = SIZE_HW,
    network: dict | None = None,
    **overrides,
) -> Path:
    """Save a tiny detector with random weights, as the trainer saves checkpoints."""
    values = merge(
        merge(merge(NETWORK, SMALL_BACKBONE) if network is None else network, overrides),
        {"eval_spatial_size": list(size_hw), "num_classes": len(NAMES), "device": "cpu"},
    )
    cfg = YAMLConfig(CONFIGS / "rtdetrv2" / f"{config}.yml", **values)
    content = {
        "model": randomize_weights(cfg.model, size_hw).state_dict(),
        "config": cfg.yaml_cfg,
        "class_names": NAMES,
        "eval_spatial_size": list(size_hw),
        "thresholds": {"overall": 0.4, "per_class": {"cat": 0.5, "dog": 0.3, "owl": 1.0}},
    }
    torch.save(content, path)
    return path


def assert_same_detections(found, expected, *, score: float = 1e-3, pixels: float = 0.5) -> None:
    """Assert that each detection has a counterpart with the same label and similar score and box.

    The order of detections with nearly equal scores, and the presence of the last one, depend on
    rounding.

    Args:
        found: labels [B, N], boxes [B, N, 4] and scores [B, N], best first.
        expected: the same.
        score: maximum difference of scores.
        pixels: maximum difference of a coordinate.
    """
    torch.testing.assert_close(found[2], expected[2], rtol=0, atol=score)
    for one in zip(*found, *expected, strict=True):
        labels, boxes, scores, want_labels, want_boxes, want_scores = one
        is_same = labels[:, None] == want_labels
        is_same &= (scores[:, None] - want_scores).abs() <= score
        is_same &= (boxes[:, None] - want_boxes).abs().amax(-1) <= pixels
        pairs = is_same[linear_sum_assignment(is_same.numpy(), maximize=True)]
        assert pairs.sum() >= (scores > scores[-1] + score / 10).sum()
