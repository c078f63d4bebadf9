"""Packed batches: unpacking restores all values, in memory that the caller owns."""

import resource
from pathlib import Path

import pytest
import torch

from rtdetrv2_pytorch.src.data.loading.packed_batch import pack, unpack
from rtdetrv2_pytorch.src.structures import Target


def target(index: int, num_boxes: int) -> Target:
    generator = torch.Generator().manual_seed(index)
    return Target(
        boxes=torch.rand(num_boxes, 4, generator=generator),
        labels=torch.randint(80, (num_boxes,), generator=generator),
        image_id=torch.tensor([100 + index]),
        area=torch.rand(num_boxes, generator=generator),
        iscrowd=torch.zeros(num_boxes, dtype=torch.int64),
        orig_size=torch.tensor([640 + index, 480]),
        idx=torch.tensor([index]),
    )


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("counts", [[2, 0, 5], [0], [0, 0, 0, 1], []])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_unpack_returns_every_tensor_of_every_image(counts, dtype):
    images = torch.randint(256, (len(counts), 3, 4, 5)).to(dtype)
    targets = [target(index, count) for index, count in enumerate(counts)]
    found_images, found = unpack(pack((images, targets)))
    assert found_images.dtype == dtype
    assert torch.equal(found_images, images)
    assert len(found) == len(targets)
    for one, other in zip(found, targets, strict=True):
        assert list(one) == list(other)
        for name in other:
            assert one[name].dtype == other[name].dtype
            assert torch.equal(one[name], other[name])


def test_channels_last_images_keep_their_values():
    images = torch.randint(256, (2, 3, 4, 5)).to(memory_format=torch.channels_last)
    assert torch.equal(unpack(pack((images, [target(0, 1), target(1, 2)])))[0], images)


def test_unpacked_tensors_are_writable_and_free_their_memory():
    before = open_files()
    images, targets = unpack(pack((torch.zeros(1, 3, 4, 5, dtype=torch.uint8), [target(0, 2)])))
    boxes = targets[0]["boxes"].clone()
    images += 1
    assert images.unique().tolist() == [1]
    assert torch.equal(targets[0]["boxes"], boxes)
    del images, targets
    assert open_files() == before


def test_a_failed_pack_leaves_no_file_open():
    before = open_files()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            pack((torch.zeros(1, 3, 64, 64, dtype=torch.uint8), [target(0, 1)]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert open_files() == before
