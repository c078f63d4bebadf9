"""A pipeline of augmentations, some of which stop at a given epoch."""

import random
from collections.abc import Sequence
from typing import Literal, NotRequired

from typing_extensions import TypedDict

from .mosaic import SampleSource
from .sample import Sample
from .transform import Transform


class Policy(TypedDict):
    """When to leave operations out.

    `stop_epoch`: from `epoch` (0-based) on, the operations named in `ops` are skipped, so that
    the network ends its training on images as they will come.
    """

    name: Literal["default", "stop_epoch"]
    epoch: NotRequired[int | None]
    ops: NotRequired[list[str]]


Policy.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]


class Compose:
    """Applies operations in order.

    Args:
        ops: the operations.
        policy: which of them stop when; None: all, always. It may name operations that are not
            there: a file that leaves one out inherits the policy of the file that it includes.
    """

    def __init__(self, *, ops: Sequence[Transform] | None, policy: Policy | None = None) -> None:
        self.ops = list(ops or ())
        self.policy: Policy = policy or {"name": "default"}

    def bind(self, source: SampleSource) -> None:
        """Tell operations that mix images where others come from."""
        for op in self.ops:
            if hasattr(op, "bind"):
                op.bind(source)

    def __call__(self, sample: Sample, rng: random.Random, epoch: int = 0) -> Sample:
        """Apply the operations of this epoch."""
        stopped = self._stopped(epoch)
        for op in self.ops:
            if type(op).__name__ not in stopped:
                sample = op(sample, rng)
        return sample

    def _stopped(self, epoch: int) -> Sequence[str]:
        stop = self.policy.get("epoch")
        if self.policy["name"] == "stop_epoch" and stop is not None and epoch >= stop:
            return self.policy.get("ops", ())
        return ()
