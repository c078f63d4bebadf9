"""Random numbers as a function of the position in a run.

Generators are seeded with (seed, epoch, step) for the network and (seed, epoch, image) for the
augmentation. Nothing depends on earlier random numbers, so a resumed run, or one with another
number of workers or ranks, samples the same numbers (decision 0006).
"""

import hashlib
import random

import numpy as np
import torch


def derive_seed(*place: int) -> int:
    """Hash integers to a 63-bit seed; similar positions have unrelated seeds."""
    digest = hashlib.blake2b(repr(place).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_everything(*place: int) -> None:
    """Seed Python, NumPy and torch on CPU and all CUDA devices for a place."""
    seed = derive_seed(*place)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
