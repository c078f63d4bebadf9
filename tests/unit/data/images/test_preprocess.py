"""Preprocessing for serving equals validation."""

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from rtdetrv2_pytorch.src.data.augment.compose import Compose
from rtdetrv2_pytorch.src.data.augment.geometric import Resize
from rtdetrv2_pytorch.src.data.augment.transform import ConvertPILImage
from rtdetrv2_pytorch.src.data.coco_dataset import CocoDetection
from rtdetrv2_pytorch.src.data.images.preprocess import preprocess
from rtdetrv2_pytorch.src.data.images.resizing import resize

CPU = torch.device("cpu")


@pytest.mark.parametrize("size_hw", [(64, 96), (17, 13), (30, 40)])
def test_preprocess_equals_validation_pipeline(write_coco, size_hw):
    transforms = Compose(ops=[Resize(size=list(size_hw)), ConvertPILImage()])
    data = CocoDetection(**write_coco() | {"transforms": transforms})
    stored = data.load_readable(0)[1].image.permute(1, 2, 0).numpy()
    result = preprocess([stored], size_hw, CPU)[0]
    assert result.dtype == torch.uint8
    assert torch.equal(result, data[0][0])


def test_halving_uses_antialiasing_weights():
    # A triangle filter of two pixels: weights 3 3 1 for rows 0 1 2, and 1 3 3 for rows 1 2 3.
    column = np.array([0, 70, 140, 210], dtype=np.uint8)
    image = np.repeat(np.repeat(column[:, None], 4, axis=1)[..., None], 3, axis=2)
    assert preprocess([image], (2, 4), CPU)[0][0, :, 0].tolist() == [50, 160]


def test_non_contiguous_images(noise):
    bgr = noise(12, 20).permute(1, 2, 0).numpy()
    rgb = bgr[:, ::-1, ::-1]
    expected = functional.resize(torch.tensor(rgb.copy()).permute(2, 0, 1), [8, 30], antialias=True)
    assert torch.equal(preprocess([rgb], (8, 30), CPU)[0], expected)


def test_image_of_target_size_is_unchanged(noise):
    image = noise(12, 20)
    assert torch.equal(preprocess([image.permute(1, 2, 0).numpy()], (12, 20), CPU)[0], image)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size_hw", [(9, 7), (40, 50), (23, 31)])
def test_resize_equals_torchvision(noise, mode, antialias, size_hw):
    image = noise(23, 31)
    layouts = (image, image[None], image.permute(1, 2, 0).contiguous().permute(2, 0, 1))
    for pixels in layouts:
        expected = functional.resize(
            pixels, list(size_hw), interpolation=InterpolationMode(mode), antialias=antialias
        )
        assert torch.equal(resize(pixels, size_hw, mode=mode, antialias=antialias), expected)


def test_resize_without_vector_kernel_equals_torchvision(noise, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    image = noise(23, 31)
    for mode in ("bilinear", "bicubic"):
        expected = functional.resize(image, [9, 50], interpolation=InterpolationMode(mode))
        assert torch.equal(resize(image, (9, 50), mode=mode), expected)
