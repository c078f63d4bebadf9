"""Color changes equal torchvision's functions of the same names."""

from itertools import permutations

import pytest
import torch
from torchvision.transforms.v2 import functional

from rtdetrv2_pytorch.src.data.augment.color import (
    PhotometricChange,
    adjust_hue,
    adjust_saturation,
    gray,
)


def difference(one, other):
    return int((one.int() - other.int()).abs().max())


def mean_gray(image):
    red, green, blue = image.double()
    return float((0.2989 * red + 0.587 * green + 0.114 * blue).floor().mean())


def pixels(*colors):
    return torch.tensor(colors, dtype=torch.uint8).T[:, None, :].contiguous()


def listed(image):
    return image[:, 0].T.tolist()


def test_gray_by_hand():
    image = pixels((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (10, 20, 30))
    # 76.2  149.7  29.1  255.0 (254.97)  18.1 (2.989 + 11.74 + 3.42)
    assert gray(image).tolist() == [[76, 149, 29, 254, 18]]


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.875, 1.0, 1.125, 2.0])
def test_brightness_equals_torchvision(noise, factor):
    image = noise(40, 50)
    result = PhotometricChange(brightness=factor)(image)
    assert torch.equal(result, functional.adjust_brightness(image, factor))


def test_brightness_by_hand():
    result = PhotometricChange(brightness=1.1)(pixels((0, 9, 100), (231, 232, 255)))
    assert listed(result) == [[0, 9, 110], [254, 255, 255]]


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.77, 1.0, 1.5])
@pytest.mark.parametrize("first", [True, False])
def test_contrast_equals_torchvision(noise, factor, first):
    image = noise(40, 50)
    change = PhotometricChange(contrast=factor, contrast_first=first, mean_gray=mean_gray(image))
    assert difference(change(image), functional.adjust_contrast(image, factor)) <= 1


def test_contrast_by_hand():
    change = PhotometricChange(contrast=0.5, mean_gray=100.0)
    assert listed(change(pixels((0, 100, 255), (90, 91, 110)))) == [[50, 100, 177], [95, 95, 105]]
    change = PhotometricChange(contrast=1.5, mean_gray=100.0)
    assert listed(change(pixels((0, 100, 255), (90, 33, 110)))) == [[0, 100, 255], [85, 0, 115]]


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.77, 1.0, 1.5, 3.0])
def test_saturation_equals_torchvision(noise, factor):
    image = noise(40, 50)
    assert (
        difference(adjust_saturation(image, factor), functional.adjust_saturation(image, factor))
        <= 1
    )


def test_saturation_by_hand():
    image = pixels((255, 0, 0), (80, 80, 80), (10, 20, 30))
    # Halfway to their grays 76, 79 and 18.
    assert listed(adjust_saturation(image, 0.5)) == [[165, 38, 38], [79, 79, 79], [14, 19, 24]]
    assert listed(adjust_saturation(image, 0.0)) == [[76] * 3, [79] * 3, [18] * 3]


@pytest.mark.parametrize("turn", [-0.5, -0.31, -0.05, 0.0, 0.013, 0.05, 0.25, 0.5])
def test_hue_equals_torchvision(noise, turn):
    image = noise(40, 50)
    assert difference(adjust_hue(image, turn), functional.adjust_hue(image, turn)) <= 1


def test_hue_by_hand():
    image = pixels((200, 100, 100), (0, 255, 0), (7, 7, 7), (0, 0, 0), (255, 255, 255))
    grays = [[7] * 3, [0] * 3, [255] * 3]
    assert listed(adjust_hue(image, 0.5)) == [[100, 200, 200], [255, 0, 255], *grays]
    # 1/12 of the circle is halfway from red to yellow.
    assert listed(adjust_hue(image, 1 / 12))[0] == [200, 150, 100]


def test_hue_keeps_maximum_and_minimum_channel(noise):
    image = noise(40, 50)
    for turn in (-0.4, -0.05, 0.05, 0.3):
        result = adjust_hue(image, turn)
        assert difference(result.amax(0), image.amax(0)) <= 1
        assert difference(result.amin(0), image.amin(0)) <= 1


def test_hue_rounding_is_unbiased(noise):
    # 100 changes accumulate any bias.
    image = noise(100, 100)
    shift = adjust_hue(image, 0.05).double() - functional.adjust_hue(image, 0.05).double()
    assert abs(float(shift.mean())) < 0.5


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_channels_are_reordered(noise, order):
    image = noise(4, 5)
    result = PhotometricChange(permutation=order)(image)
    assert torch.equal(result, functional.permute_channels(image, list(order)))


def in_torchvision(image, change):
    """Apply torchvision's operations one after the other."""
    image = functional.adjust_brightness(image, change.brightness)
    if change.contrast_first:
        image = functional.adjust_contrast(image, change.contrast)
    image = functional.adjust_saturation(image, change.saturation)
    image = functional.adjust_hue(image, change.hue)
    if not change.contrast_first:
        image = functional.adjust_contrast(image, change.contrast)
    return functional.permute_channels(image, list(change.permutation))


@pytest.mark.parametrize("contrast_first", [True, False])
@pytest.mark.parametrize("brightness", [0.875, 1.0])
def test_combined_changes_equal_torchvision(noise, contrast_first, brightness):
    image = noise(40, 50) // 2 + 64  # avoid clipping, which the mean ignores
    change = PhotometricChange(
        brightness=brightness,
        contrast=0.6,
        contrast_first=contrast_first,
        mean_gray=mean_gray(image),
        saturation=0.7,
        hue=0.05,
        permutation=(1, 2, 0),
    )
    assert difference(change(image), in_torchvision(image, change)) <= 3


def test_order_of_contrast_and_saturation_matters(noise):
    image = noise(40, 50)
    changes = [
        PhotometricChange(
            contrast=1.5, saturation=1.5, mean_gray=mean_gray(image), contrast_first=first
        )
        for first in (True, False)
    ]
    assert difference(changes[0](image), changes[1](image)) > 20


def test_contrast_mean_includes_brightness(noise):
    image = noise(40, 50)
    change = PhotometricChange(brightness=0.5, contrast=0.5, mean_gray=mean_gray(image))
    expected = functional.adjust_contrast(functional.adjust_brightness(image, 0.5), 0.5)
    assert difference(change(image), expected) <= 1
    white = PhotometricChange(brightness=1.125, contrast=0.5, mean_gray=250.0)
    assert listed(white(pixels((250, 250, 250)))) == [[255, 255, 255]]


def test_empty_change_returns_image(noise):
    image = noise(4, 5)
    assert torch.equal(PhotometricChange()(image), image)


def test_source_is_not_modified(noise):
    image = noise(4, 5)
    before = image.clone()
    change = PhotometricChange(1.1, 0.5, True, 100.0, 1.5, 0.05, (2, 1, 0))
    change(image)
    assert torch.equal(image, before)


def test_non_contiguous_images(noise):
    view = noise(20, 30)[:, 3:11, 4:29:3]
    change = PhotometricChange(1.1, 0.5, True, 100.0, 1.5, 0.05, (2, 1, 0))
    assert torch.equal(change(view), change(view.clone(memory_format=torch.contiguous_format)))
    channels_last = view.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert torch.equal(change(channels_last), change(view))
