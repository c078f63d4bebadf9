"""`pin_ahead` copies images to page-locked memory; CUDA is faked."""

import threading

import pytest
import torch

from rtdetrv2_pytorch.src.data.loading.pinning import pin_ahead


@pytest.fixture
def pinned_in(monkeypatch):
    """Adds 1 to images that are pinned, and records the device of the thread."""
    threads, devices = [], {}
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(
        torch.cuda, "set_device", lambda d: devices.update({threading.get_ident(): d})
    )

    def pin_memory(self):
        threads.append(devices[threading.get_ident()])
        return self + 1

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    return threads


@pytest.mark.parametrize("count", [0, 1, 4])
def test_batches_keep_their_order_and_targets(pinned_in, count):
    batches = [(torch.tensor([10 * i]), [{"idx": torch.tensor([i])}]) for i in range(count)]
    found = list(pin_ahead(iter(batches)))
    assert [int(images) for images, _ in found] == [10 * i + 1 for i in range(count)]
    assert all(a[1] is b[1] for a, b in zip(found, batches, strict=True))
    assert pinned_in == [3] * count


def test_the_next_batch_is_pinned_before_the_current_one_is_returned(pinned_in):
    taken = []

    def batches():
        for number in range(3):
            taken.append(number)
            yield torch.tensor([number]), []

    first, _ = next(pin_ahead(batches()))
    assert int(first) == 1
    assert taken == [0, 1]


def test_errors_of_the_batches_are_raised(pinned_in):
    def batches():
        yield torch.tensor([0]), []
        raise OSError("cannot read")

    with pytest.raises(OSError, match="cannot read"):
        list(pin_ahead(batches()))
