"""Randomness as a function of place, not of history.

Every random decision of a training run is drawn from a generator seeded with where it stands:
(seed, rank, epoch, step) for the network, (seed, epoch, image) for augmentation. Nothing depends
on what was drawn before, so a resumed run, or one with another number of workers, draws the same.
"""

import hashlib
import random

import numpy as np
import torch


def derive_seed(*place: int) -> int:
    """Mix integers into one 63-bit seed; neighbouring places give unrelated seeds."""
    digest = hashlib.blake2b(repr(place).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_everything(*place: int) -> None:
    """Seed Python, NumPy and torch (CPU and all CUDA devices) for this place."""
    seed = derive_seed(*place)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
