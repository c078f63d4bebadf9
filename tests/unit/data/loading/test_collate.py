"""Collation and multi-scale sizes."""

from collections import Counter

import pytest
import torch
from torch.nn import functional

from rtdetrv2_pytorch.src.data.loading.collate import (
    BatchImageCollateFunction,
    resize_batch,
    scale_sizes,
)

SCALES = [480, 512, 544, 576, 608, 640, 640, 640, 672, 704, 736, 768, 800]


def test_images_are_stacked_and_targets_listed(noise):
    items = [(noise(4, 6, seed), {"image_id": seed}) for seed in range(3)]
    images, targets = BatchImageCollateFunction()(items)
    assert images.dtype == torch.uint8
    assert images.shape == (3, 3, 4, 6)
    for seed in range(3):
        assert torch.equal(images[seed], noise(4, 6, seed))
    assert targets == [{"image_id": 0}, {"image_id": 1}, {"image_id": 2}]


def test_unreadable_items_are_skipped(noise):
    images, targets = BatchImageCollateFunction()([None, (noise(4, 6), {"image_id": 7}), None])
    assert torch.equal(images, noise(4, 6)[None])
    assert targets == [{"image_id": 7}]


@pytest.mark.parametrize("items", [[], [None, None]])
def test_empty_batch(items):
    images, targets = BatchImageCollateFunction()(items)
    assert (len(images), targets) == (0, [])


def test_different_image_sizes_are_rejected(noise):
    items = [(noise(4, 6), {}), (noise(6, 4), {}), (noise(4, 6), {})]
    message = (
        r"images of a batch differ in size \(4x6, 6x4\); end the transforms with a Resize to "
        r"\(height, width\)"
    )
    with pytest.raises(ValueError, match=message):
        BatchImageCollateFunction()(items)


def test_size_depends_on_seed_epoch_and_step_only():
    places = [(epoch, step) for epoch in range(4) for step in range(25)]

    def sizes(seed):
        collate = BatchImageCollateFunction(scales=SCALES, seed=seed)
        return [collate.size_for((640, 640), *place) for place in places]

    assert sizes(5) == sizes(5)
    reverse = BatchImageCollateFunction(scales=SCALES, seed=5)
    assert [reverse.size_for((640, 640), *p) for p in places[::-1]] == sizes(5)[::-1]
    assert sizes(5) != sizes(6)
    assert sizes(5)[:25] != sizes(5)[25:50]


def test_scales_are_chosen_uniformly():
    collate = BatchImageCollateFunction(scales=SCALES)
    counts = Counter(collate.size_for((640, 640), 0, step) for step in range(13000))
    assert set(counts) == {(s, s) for s in SCALES}
    for (side, _), count in counts.items():
        # 13 choices of equal weight; five standard deviations of 1000 are 152.
        assert count == pytest.approx(1000 * SCALES.count(side), abs=260 if side == 640 else 152)


@pytest.mark.parametrize(
    ("scales", "stop_epoch", "epoch", "may_change"),
    [
        (None, None, 0, False),
        ([], None, 0, False),
        (SCALES, 3, 2, True),
        (SCALES, 3, 3, False),
        (SCALES, 3, 4, False),
        (SCALES, 0, 0, False),
        (SCALES, None, 10**6, True),
    ],
)
def test_sizes_change_until_stop_epoch(scales, stop_epoch, epoch, may_change):
    collate = BatchImageCollateFunction(scales=scales, stop_epoch=stop_epoch)
    sizes = {collate.size_for((512, 768), epoch, step) for step in range(40)}
    assert (sizes != {(512, 768)}) == may_change


@pytest.mark.parametrize(
    ("scales", "size_hw", "expected"),
    [
        pytest.param([480, 640, 800], (640, 640), [(480, 480), (640, 640), (800, 800)], id="640"),
        pytest.param([480, 640, 800], (800, 800), [(480, 480), (640, 640), (800, 800)], id="800"),
        # The longer side is the scale; 480 * 3/4 = 360 = 11.25 * 32.
        pytest.param([480, 640, 800], (480, 640), [(352, 480), (480, 640), (608, 800)], id="wide"),
        pytest.param([480, 640, 800], (640, 480), [(480, 352), (640, 480), (800, 608)], id="tall"),
        # Outside the range, scales are 3/4, 1 and 5/4 of the base.
        pytest.param([480, 640, 800], (320, 320), [(256, 256), (320, 320), (384, 384)], id="320"),
        pytest.param(
            [480, 640, 800], (1280, 960), [(960, 704), (1280, 960), (1600, 1216)], id="1280"
        ),
        pytest.param([640], (320, 64), [(320, 64)], id="one scale"),
        pytest.param([320, 640, 960], (1000, 30), [(512, 32), (992, 32), (1504, 32)], id="thin"),
    ],
)
def test_scales_keep_aspect_ratio(scales, size_hw, expected):
    assert scale_sizes(scales, size_hw) == expected


@pytest.mark.parametrize("side", range(64, 1281, 32))
def test_scales_contain_base_size(side):
    assert (side, side) in scale_sizes(SCALES, (side, side))


@pytest.mark.parametrize("size_hw", [(6, 4), (3, 9), (10, 14)])
def test_resize_batch_is_bilinear_and_scales_to_one(noise, size_hw):
    images = torch.stack([noise(6, 7, seed) for seed in range(2)])
    result = resize_batch(images, size_hw)
    expected = functional.interpolate(images.double() / 255, size=size_hw, mode="bilinear")
    torch.testing.assert_close(result.double(), expected, atol=1e-6, rtol=0)
    assert result.dtype == torch.float32


def test_resize_batch_of_target_size_only_scales():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    result = resize_batch(images, (1, 3))
    torch.testing.assert_close(result.flatten(), torch.tensor([0, 0.2, 1.0]))
    assert images.flatten().tolist() == [0, 51, 255]


def test_resize_batch_keeps_float_values():
    images = torch.tensor([-2.0, 2.0]).view(1, 1, 1, 2)
    torch.testing.assert_close(resize_batch(images, (1, 2)), images)
    widened = resize_batch(images, (1, 4)).flatten()
    torch.testing.assert_close(widened, torch.tensor([-2.0, -1.0, 1.0, 2.0]))
