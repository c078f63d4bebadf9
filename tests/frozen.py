"""Imported last by servers that fork: garbage collections of the forks skip what exists here.

It imports what torch and the engine import late, at the first step of a training, which takes
longer than such a training in a test.
"""

import contextlib
import gc

import scipy.optimize  # noqa: F401
import torch._decomp  # noqa: F401
import torch._dynamo  # noqa: F401
import torch.distributed.fsdp  # noqa: F401
import torch.fx.experimental.symbolic_shapes

with contextlib.suppress(ImportError):
    import torch.utils.tensorboard  # noqa: F401

gc.collect()
gc.freeze()
gc.set_threshold(20_000, 20, 50)  # as in conftest.py
