"""What a worker hands over is what was collated, in a message that cannot be cut off."""

import select
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from rtdetrv2_pytorch.src.data.loading.packed_batch import PackedBatch
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


@pytest.mark.parametrize("counts", [[2, 0, 5], [0], [0, 0, 0, 1], []])
def test_every_image_gets_its_own_rows_back(counts):
    images = torch.randint(256, (len(counts), 3, 4, 5), dtype=torch.uint8)
    targets = [target(index, count) for index, count in enumerate(counts)]
    packed = PackedBatch.of(images.clone(), targets)
    tensors = [packed.images, packed.rows, *packed.values.values()]
    assert all(tensor.is_shared() for tensor in tensors)
    found_images, found = packed.unpack()
    assert torch.equal(found_images, images)
    assert len(found) == len(targets)
    for one, other in zip(found, targets, strict=True):
        assert list(one) == list(other)
        for name in other:
            assert one[name].dtype == other[name].dtype
            assert torch.equal(one[name], other[name])


def test_the_message_of_a_large_batch_is_written_whole_or_not_at_all():
    targets = [target(index, 300) for index in range(128)]
    packed = PackedBatch.of(torch.zeros(128, 3, 8, 8, dtype=torch.uint8), targets)
    # With the length before it, and the place of the batch in the epoch.
    assert 4 + len(ForkingPickler.dumps((10**6, packed))) < select.PIPE_BUF / 2


def test_torch_can_pin_its_memory(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, *args: self + 1)
    packed = PackedBatch.of(
        torch.zeros(2, 3, 4, 5, dtype=torch.uint8), [target(0, 2), target(1, 3)]
    )
    pinned = pin_memory(packed)
    assert isinstance(pinned, PackedBatch)
    assert torch.equal(pinned.images, packed.images + 1)
    assert torch.equal(pinned.rows, packed.rows + 1)
    for name, value in packed.values.items():
        assert torch.equal(pinned.values[name], value + 1)
