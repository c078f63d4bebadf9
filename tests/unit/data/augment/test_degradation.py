"""Blur, noise, compression and gray, against independent computations."""

import io
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from rtdetrv2_pytorch.src.data.augment.degradation import RandomBlur, RandomJPEG, RandomNoise
from rtdetrv2_pytorch.src.data.augment.photometric import RandomGrayscale, RandomPhotometricDistort

OPS = {
    "RandomBlur": RandomBlur(p=1),
    "RandomNoise": RandomNoise(p=1),
    "RandomJPEG": RandomJPEG(p=1),
    "RandomGrayscale": RandomGrayscale(p=1),
}


def applied(op, sample, seed=0):
    op(sample, random.Random(seed)).materialize()
    return sample.image


def test_blur_is_the_mean_of_a_square(make_sample):
    sample = make_sample(12, 15)
    expected = torch.nn.functional.avg_pool2d(sample.image.float(), 3, stride=1)
    image = applied(RandomBlur(radius=(1, 1), p=1), sample)
    assert (image[:, 1:-1, 1:-1] - expected).abs().max() <= 1


def test_noise_has_its_distribution(make_sample):
    sample = make_sample(200, 200)
    sample.image[:] = 128
    noise = applied(RandomNoise(std=(8, 8), p=1), sample).float() - 128
    assert abs(float(noise.mean())) < 0.15  # 8 / sqrt(120000) = 0.02, and rounding
    assert float(noise.std()) == pytest.approx(8, abs=0.15)
    within = [float((noise.abs() <= 8 * k).float().mean()) for k in (1, 2)]
    assert within == pytest.approx([0.683, 0.954], abs=0.03)
    horizontal = (noise[:, :, 1:] * noise[:, :, :-1]).mean() / 64
    between = (noise[0] * noise[1]).mean() / 64
    assert max(abs(float(horizontal)), abs(float(between))) < 0.03


def test_noise_is_clipped(make_sample):
    sample = make_sample(20, 20)
    sample.image[:, :, :10], sample.image[:, :, 10:] = 0, 255
    image = applied(RandomNoise(std=(5, 5), p=1), sample)
    assert image[:, :, :10].max() < 40
    assert image[:, :, 10:].min() > 215


def test_jpeg_equals_pillow(make_sample):
    sample = make_sample(24, 31)
    buffer = io.BytesIO()
    Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=30)
    expected = np.array(Image.open(buffer))
    image = applied(RandomJPEG(quality=(30, 30), p=1), sample)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)


def test_gray_equals_torchvision(make_sample):
    sample = make_sample(9, 7)
    expected = functional.rgb_to_grayscale(sample.image, num_output_channels=3)
    assert torch.equal(applied(RandomGrayscale(p=1), sample), expected)


@pytest.mark.parametrize("name", OPS)
def test_pixels_change_and_boxes_do_not(make_sample, name):
    images = []
    for seed in (0, 0, 3):
        sample = make_sample(40, 50, (3, 4, 20, 30))
        before = sample.image.clone()
        images.append(applied(OPS[name], sample, seed))
        assert sample.boxes.tolist() == [[3, 4, 20, 30]]
        assert images[-1].dtype == torch.uint8
        assert not torch.equal(images[-1], before)
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2]) == (name == "RandomGrayscale")


@pytest.mark.parametrize("name", OPS)
def test_probability(make_sample, name):
    changed = 0
    for seed in range(200):
        sample = make_sample(8, 8)
        before = sample.image.clone()
        changed += not torch.equal(applied(type(OPS[name])(p=0.3), sample, seed), before)
    assert abs(changed - 60) < 33


@pytest.mark.parametrize(
    ("op", "options", "message"),
    [
        (RandomBlur, {"radius": (-1, 1)}, r"radius \(-1, 1\): give \(low, high\) with 0 <= low"),
        (RandomNoise, {"std": (0, 1)}, r"std \(0, 1\): give \(low, high\) with 0 < low"),
        (RandomJPEG, {"quality": (0, 90)}, r"quality \(0, 90\): .* 1 <= low <= high <= 100"),
    ],
)
def test_invalid_ranges(op, options, message):
    with pytest.raises(ValueError, match=message):
        op(**options)


def test_colors_without_hue_and_channel_order(make_sample):
    """Equal channels stay equal, and random numbers of other changes are as with them."""
    op = RandomPhotometricDistort(p=1, hue=(0, 0), saturation=(1, 1), permute=False)
    sample = make_sample(9, 9)
    sample.image[1:] = sample.image[:1]
    op(sample, random.Random(3))
    (change,) = sample.pixel_ops
    assert (change.hue, change.saturation, change.permutation) == (None, None, None)
    assert change.brightness is not None
    sample.materialize()
    assert torch.equal(sample.image[0], sample.image[2])
