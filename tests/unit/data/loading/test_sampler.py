"""The order of indices depends only on seed, epoch and step."""

import math

import numpy as np
import pytest

from rtdetrv2_pytorch.src.data.loading.sampler import EpochSampler
from rtdetrv2_pytorch.src.misc import distributed


def sampler(num_images, batch_size, *, shuffle=True, drop_last=True, seed=0):
    return EpochSampler(num_images, batch_size, shuffle=shuffle, drop_last=drop_last, seed=seed)


def batches(it, epoch=0, start_step=0):
    it.set_epoch(epoch, start_step)
    return list(it)


def flat(lists):
    return [value for part in lists for value in part]


def on_ranks(monkeypatch, count, make):
    """Return the result of `make` on each of `count` ranks."""
    results = []
    for rank in range(count):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(distributed, "world_size", lambda: count)
        results.append(make())
    return results


def test_epoch_is_permutation_determined_by_seed_and_epoch():
    one = sampler(23, 4, drop_last=False)
    first, second = batches(one, 0), batches(one, 1)
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(23))
    assert [len(b) for b in first] == [4, 4, 4, 4, 4, 3]
    assert len({tuple(flat(first)), tuple(flat(second)), tuple(range(23))}) == 3
    again = sampler(23, 4, drop_last=False)
    assert batches(again, 1) == second
    assert batches(again, 0) == first
    assert batches(sampler(23, 4, drop_last=False, seed=1), 0) != first


def test_first_image_is_uniform():
    one = sampler(4, 1)
    first = [batches(one, epoch)[0][0] for epoch in range(2000)]
    # Five standard deviations of 500.
    assert np.bincount(first) == pytest.approx([500] * 4, abs=97)


@pytest.mark.parametrize("start_step", range(7))
def test_start_step_yields_remaining_batches(start_step):
    one = sampler(23, 4, drop_last=False)
    whole = batches(one, 3)
    assert batches(one, 3, start_step) == whole[start_step:]
    assert len(one) == 6
    assert batches(one, 3) == whole


def test_order_without_shuffle():
    one = sampler(5, 2, shuffle=False, drop_last=False)
    assert batches(one, 0) == batches(one, 9) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("num_images", "drop_last", "sizes"),
    [
        (7, True, [3, 3]),
        (7, False, [3, 3, 1]),
        (6, True, [3, 3]),
        (6, False, [3, 3]),
        (2, True, []),
        (2, False, [2]),
    ],
)
def test_drop_last(num_images, drop_last, sizes):
    one = sampler(num_images, 3, drop_last=drop_last)
    assert [len(b) for b in one] == sizes
    assert len(one) == len(sizes)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("num_images", [8, 23, 24, 25])
def test_ranks_train_on_disjoint_images_in_equal_numbers(monkeypatch, count, num_images):
    per_rank = on_ranks(
        monkeypatch, count, lambda: batches(sampler(num_images, 2 * count, seed=5), 1)
    )
    assert len({len(b) for b in per_rank}) == 1
    assert len(per_rank[0]) == num_images // (2 * count)
    assert all(len(b) == 2 for b in flat(per_rank))
    seen = flat(flat(per_rank))
    assert len(seen) == len(set(seen))
    assert set(seen) <= set(range(num_images))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("num_images", [3, 23, 24])
def test_ranks_evaluate_every_image_once(monkeypatch, count, num_images):
    def make():
        one = sampler(num_images, 2, shuffle=False, drop_last=False)
        assert len(list(one)) == len(one)
        return batches(one)

    assert sorted(flat(flat(on_ranks(monkeypatch, count, make)))) == list(range(num_images))


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_divide_batches_of_single_process(monkeypatch, count, shuffle):
    """Seven images per step are 3 + 4 on two ranks, 2 + 2 + 3 on three."""

    def make():
        return batches(sampler(23, 7, shuffle=shuffle, drop_last=False), 1)

    (whole,) = on_ranks(monkeypatch, 1, make)
    assert [len(b) for b in whole] == [7, 7, 7, 2]
    parts = on_ranks(monkeypatch, count, make)
    for step, batch in enumerate(whole):
        shares = [part[step] for part in parts if step < len(part)]
        # In training, a batch of two images is dropped on three ranks.
        is_left_out = shuffle and len(batch) < count
        assert flat(shares) == ([] if is_left_out else batch)
        assert max(map(len, shares), default=0) <= math.ceil(len(batch) / count)


def test_evaluation_with_fewer_images_than_ranks(monkeypatch):
    per_rank = on_ranks(
        monkeypatch, 4, lambda: batches(sampler(3, 8, shuffle=False, drop_last=False))
    )
    assert per_rank == [[], [[0]], [[1]], [[2]]]


def test_start_step_with_several_ranks(monkeypatch):
    whole = on_ranks(monkeypatch, 2, lambda: batches(sampler(23, 4), 1))
    rest = on_ranks(monkeypatch, 2, lambda: batches(sampler(23, 4), 1, 3))
    assert rest == [b[3:] for b in whole]
