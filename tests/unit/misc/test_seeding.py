"""Random seeds derived from the position in a run."""

import random
from itertools import product

import numpy as np
import pytest
import torch

from rtdetrv2_pytorch.src.misc.seeding import derive_seed, seed_everything


@pytest.fixture(autouse=True)
def _restored():
    python, numpy = random.getstate(), np.random.get_state()
    yield
    random.setstate(python)
    np.random.set_state(numpy)


def random_values():
    return random.random(), float(np.random.rand()), torch.rand(()).item()


def test_derived_seeds_are_stable():
    # blake2b with 8 bytes of b"(0,)" and b"(7, 1, 2)", little endian, halved.
    assert derive_seed(0) == 2631537505891389924
    assert derive_seed(7, 1, 2) == 8222420622990672231


def test_derived_seeds_are_unique_and_fit_63_bits():
    grid = list(product(range(12), repeat=3))
    seeds = [derive_seed(*place) for place in grid] + [derive_seed(*p[:2]) for p in grid[::12]]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 2) != derive_seed(2, 1)
    assert derive_seed(1, 2) != derive_seed(12)
    assert derive_seed(-1) != derive_seed(1)


def test_seeds_of_adjacent_positions_are_unrelated():
    shared = [(derive_seed(0, i) ^ derive_seed(0, i + 1)).bit_count() for i in range(400)]
    assert np.mean(shared) == pytest.approx(31.5, abs=1)


def test_seeding_does_not_depend_on_earlier_random_numbers():
    seed_everything(7, 0, 3)
    expected = random_values()
    random_values()
    seed_everything(7, 0, 3)
    assert random_values() == expected
    seed_everything(7, 0, 4)
    assert not set(random_values()) & set(expected)


@pytest.mark.parametrize("place", [(5, 6), (0,), (1, 2, 3), (2,), (3,)])
def test_seed_everything_seeds_python_numpy_and_torch(place):
    seed_everything(*place)
    seed = derive_seed(*place)
    assert random_values() == (
        random.Random(seed).random(),
        float(np.random.RandomState(seed % 2**32).rand()),
        torch.rand((), generator=torch.Generator().manual_seed(seed)).item(),
    )
